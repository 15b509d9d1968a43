/**
 * Device events: once a second one process of the farm compares what workers publish with what was known, and notes what has changed.
 *
 * | event | when |
 * | --- | --- |
 * | `device.online` | it came, or is idle again |
 * | `device.busy`, `device.degraded` | its worker says so; degraded comes with the alerts that say why |
 * | `device.offline` | its worker's record has expired or was withdrawn, or another epoch of it is there |
 * | `alert.raised`, `alert.cleared` | an alert of its worker came or went |
 *
 * A change is noted by one script, which compares what was known when the looker looked; what is known is read before the workers are. So
 * several lookers, or one that froze, note each change once and in order. Numbers grow by one; the newest are kept.
 */
import type { Alert } from '../domains/device/status.ts'
import { readDeviceEvents, readKnownDevices, readWorkers, recordDevice } from './ledger.ts'
import { keys } from '../keys.ts'
import type { Logger } from '../log.ts'
import { ask, type Redis } from '../redis.ts'
import type { WorkerRecord } from './record.ts'
import { Ticker } from '../ticker.ts'

export const deviceStates = ['online', 'busy', 'degraded', 'offline'] as const
export type DeviceState = (typeof deviceStates)[number]
export const deviceEventTypes = [
  'device.online',
  'device.busy',
  'device.degraded',
  'device.offline',
  'alert.raised',
  'alert.cleared',
] as const

export interface DeviceEvent {
  /** Grows by one from event to event. */
  id: number
  /** Milliseconds since 1970 by Redis' clock. */
  at: number
  type: (typeof deviceEventTypes)[number]
  device: string
  worker: string
  /** The state before; null when it was not here. */
  from: DeviceState | null
  /** Of an alert, what it says. */
  alert: Pick<Alert, 'code' | 'message'> | null
  /** Of `device.offline`: why. */
  note: string | null
}
export type Change = Omit<DeviceEvent, 'id' | 'at'>

/** What is remembered of a device between two looks. */
export interface Known {
  worker: string
  epoch: string
  state: Exclude<DeviceState, 'offline'>
  alerts: Alert['code'][]
}

/** Events that are kept. */
export const mostEvents = 1000
const tickMs = 1000

/** A device as its worker publishes it; one whose worker takes no more steps is degraded. */
export const stateOf = ({ status, report }: Pick<WorkerRecord, 'status' | 'report'>): Known['state'] =>
  status === 'suspect' || status === 'stalled' ? 'degraded' : report.state

export const knownOf = (worker: Pick<WorkerRecord, 'id' | 'epoch' | 'status' | 'report'>): Known => ({
  worker: worker.id,
  epoch: worker.epoch,
  state: stateOf(worker),
  alerts: worker.report.alerts.map(({ code }) => code).toSorted(),
})

/** What has changed of one device. `messages`: what its alerts say now. Pure. */
export function changesOf(
  device: string,
  before: Known | undefined,
  after: Known | undefined,
  messages: ReadonlyMap<string, string> = new Map(),
): Change[] {
  if (before && after && before.epoch !== after.epoch)
    return [...changesOf(device, before, undefined), ...changesOf(device, undefined, after, messages)]
  const { worker } = after ?? before ?? { worker: '' }
  const base = { device, worker, from: before?.state ?? null, alert: null, note: null }
  if (before && !after) {
    const note = `worker ${worker} has gone, and with it what it held of the device`
    return [...before.alerts.map((code) => alertChange('alert.cleared', code)), { ...base, type: 'device.offline', note }]
  }
  if (!after) return []
  const state: Change[] = before?.state === after.state ? [] : [{ ...base, type: `device.${after.state}` }]
  const raised = after.alerts.filter((code) => !before?.alerts.includes(code))
  const cleared = (before?.alerts ?? []).filter((code) => !after.alerts.includes(code))
  return [
    ...state,
    ...raised.map((code) => alertChange('alert.raised', code)),
    ...cleared.map((code) => alertChange('alert.cleared', code)),
  ]

  function alertChange(type: 'alert.raised' | 'alert.cleared', code: Alert['code']): Change {
    return { ...base, type, alert: { code, message: messages.get(code) ?? '' } }
  }
}

export class DeviceWatch {
  readonly #redis: Redis
  readonly #ticker: Ticker

  constructor(redis: Redis, log: Logger) {
    this.#redis = redis
    this.#ticker = new Ticker(
      tickMs,
      () => this.#turn(),
      (error) => log.debug({ err: error }, 'the devices were not looked at'),
    )
  }

  start(): void {
    this.#ticker.start()
  }

  stop(): Promise<void> {
    return this.#ticker.stop()
  }

  async #turn(): Promise<void> {
    // Saves work; what keeps events from being noted twice is the script.
    if ((await ask(this.#redis.set(keys.deviceWatch(), '1', 'PX', tickMs - 100, 'NX'))) !== null) await this.look()
  }

  /** Compares once, and notes what has changed. */
  async look(): Promise<void> {
    const known = await readKnownDevices(this.#redis)
    const workers = new Map((await readWorkers<WorkerRecord>(this.#redis)).map((worker) => [worker.device.id, worker]))
    for (const device of new Set([...Object.keys(known), ...workers.keys()])) {
      const worker = workers.get(device)
      const before = known[device] ?? ''
      const now = worker && knownOf(worker)
      const after = now ? JSON.stringify(now) : ''
      if (before === after) continue
      const messages = new Map(worker?.report.alerts.map(({ code, message }) => [code, message]))
      const events = changesOf(device, before === '' ? undefined : (JSON.parse(before) as Known), now, messages)
      await recordDevice(this.#redis, device, { before, after, events, most: mostEvents })
    }
  }

  /** Events after the one with that number, oldest first; without a number the newest. */
  events(after: number | undefined, limit: number): Promise<DeviceEvent[]> {
    return readDeviceEvents(this.#redis, after, limit)
  }
}
