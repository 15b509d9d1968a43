/** The rooms that show how the farm is and what it is told to do: one script, for each alone is small. */
export { Batches } from './batches.tsx'
export { Devices } from './devices.tsx'
export { Keys } from './keys.tsx'
export { Models } from './models.tsx'
export { QueueRoom } from './queue.tsx'
export { Schedules } from './schedules.tsx'
export { Webhooks } from './webhooks.tsx'
export { Workflows } from './workflows.tsx'
