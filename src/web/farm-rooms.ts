/** The rooms that show how the farm is and what it is told to do: one script, for each alone is small. */
import { Batches } from './batches.tsx'
import { Devices } from './devices.tsx'
import { Keys } from './keys.tsx'
import { Models } from './models.tsx'
import { QueueRoom } from './queue.tsx'
import { Schedules } from './schedules.tsx'
import { Webhooks } from './webhooks.tsx'
import { Workflows } from './workflows.tsx'

export const rooms = {
  batches: Batches,
  devices: Devices,
  keys: Keys,
  models: Models,
  queue: QueueRoom,
  schedules: Schedules,
  webhooks: Webhooks,
  workflows: Workflows,
}
