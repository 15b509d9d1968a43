/** The lease of a device: one worker uses it at a time. */
import { setTimeout as delay } from 'node:timers/promises'
import { ClockKeeper } from '../clock.ts'
import { deviceError } from '../domains/device/errors.ts'
import { keys } from '../keys.ts'
import type { Logger } from '../log.ts'
import { runScript, type Redis } from '../redis.ts'

/** How long a lease lives without its worker, ms. */
const leaseMs = 5000
const retryMs = 250

/** A device held by one worker; `Symbol.asyncDispose` gives it back. */
export interface DeviceLease extends AsyncDisposable {
  /** False when another worker holds it: this one must stop using the device. */
  renew(): Promise<boolean>
}

/**
 * Takes the device for `owner`; `waits` up to one lease time for a dead worker's lease to end.
 * @throws DarkroomError `device.taken` when a living worker holds it.
 */
export async function leaseDevice(redis: Redis, deviceId: string, owner: string, waits: boolean, log: Logger): Promise<DeviceLease> {
  const hold = async (ms: number): Promise<boolean> =>
    (await runScript(redis, 'leaseDevice', keys.deviceLease(deviceId), [owner, ms]))[0] === 'ok'
  const until = waits ? performance.now() + leaseMs + 1000 : 0
  while (!(await hold(leaseMs))) {
    if (performance.now() > until) throw deviceError('taken', `device ${deviceId} is owned by another living worker`)
    await delay(retryMs)
  }
  // What attempts reserve of the device is reckoned by its time, which is its worker's to keep.
  const clock = new ClockKeeper(redis, [keys.deviceClock(deviceId)], log)
  clock.start()
  return {
    renew: () => hold(leaseMs),
    [Symbol.asyncDispose]: async () => {
      await Promise.all([clock.stop(), hold(0)])
    },
  }
}
