/** Devices by the names people give them. */
import { DarkroomError } from '../errors.ts'
import type { WorkerRecord } from './session.ts'

/**
 * The ready worker of a device: by its id, or by `cuda:0` while that means one device only.
 * @param field what is named in a refusal
 * @throws DarkroomError `device.unknown`
 */
export function findDevice(name: string, workers: readonly WorkerRecord[], field: string): WorkerRecord {
  const ready = workers.filter((worker) => worker.status === 'ready')
  const [found, ...others] = ready.filter(({ device: { id, kind, index } }) => id === name || `${kind}:${index}` === name)
  if (found && others.length === 0) return found
  const ids = (some: WorkerRecord[]): string => some.map(({ device }) => device.id).join(', ') || 'none'
  const why = found ? `${name} may mean any of ${ids([found, ...others])}` : `there is no device ${name} now; there are: ${ids(ready)}`
  throw new DarkroomError('device.unknown', why, { field })
}
