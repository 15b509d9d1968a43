/**
 * Device events: once a second one process of the farm compares the workers' records with the last recorded state of
 * their devices, and records the changes.
 *
 * | event | when |
 * | --- | --- |
 * | `device.online` | it came, or is idle again |
 * | `device.busy`, `device.degraded` | its worker says so; degraded comes with the alerts that say why |
 * | `device.offline` | its worker's record has expired or was withdrawn, or another epoch of it is there |
 * | `alert.raised`, `alert.cleared` | an alert of its worker came or went |
 *
 * The script that records a change is a compare-and-set on the last recorded state, which is read before the workers'
 * records. So several concurrent observers, or one that froze, record each change once and in order. Numbers grow by
 * one; the newest events are kept.
 */
import type { Alert } from '../domains/device/status.ts'
import { keys } from '../keys.ts'
import type { Logger } from '../log.ts'
import { takeTurn } from '../clock.ts'
import { translated, runScript, type Redis } from '../redis.ts'
import { Ticker } from '../ticker.ts'
import { keepSamples } from './history.ts'
import { readWorkers } from './presence.ts'
import type { WorkerRecord } from './record.ts'

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

/** The recorded state of a device. */
export interface Known {
  worker: string
  epoch: string
  state: Exclude<DeviceState, 'offline'>
  alerts: Alert['code'][]
}

/** How many events are kept. */
export const maxEvents = 1000
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

/** The changes of one device between two states, in order. `messages`: the text of its alerts now. Pure. */
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
      (error) => log.debug({ err: error }, 'the devices could not be compared'),
    )
  }

  start(): void {
    this.#ticker.start()
  }

  stop(): Promise<void> {
    return this.#ticker.stop()
  }

  async #turn(): Promise<void> {
    // One observer a second is enough; it is the script that keeps events from being recorded twice.
    if (await takeTurn(this.#redis, keys.deviceWatch(), tickMs - 100)) await this.compare()
  }

  /** Compares once, and records the changes; once a minute also how the devices are. */
  async compare(): Promise<void> {
    const known = await translated(this.#redis.hgetall(keys.devices()))
    const all = await readWorkers(this.#redis)
    await keepSamples(this.#redis, all)
    const workers = new Map(all.map((worker) => [worker.device.id, worker]))
    for (const device of new Set([...Object.keys(known), ...workers.keys()])) {
      const worker = workers.get(device)
      const before = known[device] ?? ''
      const now = worker && knownOf(worker)
      const after = now ? JSON.stringify(now) : ''
      if (before === after) continue
      const messages = new Map(worker?.report.alerts.map(({ code, message }) => [code, message]))
      const changes = changesOf(device, before === '' ? undefined : (JSON.parse(before) as Known), now, messages)
      const entries = changes.map((change) => JSON.stringify(change).slice(1, -1))
      await runScript(this.#redis, 'recordDevice', keys.devices(), [device, before, after, maxEvents, ...entries])
    }
  }

  /** At most `limit` events after the one with that number, oldest first; without a number the newest. */
  async events(after: number | undefined, limit: number): Promise<DeviceEvent[]> {
    const events = keys.deviceEvents()
    const texts =
      after === undefined
        ? await translated(this.#redis.zrange(events, String(-limit), '-1'))
        : await translated(this.#redis.zrangebyscore(events, `(${after}`, '+inf', 'LIMIT', 0, limit))
    return texts.map((text) => JSON.parse(text) as DeviceEvent)
  }
}
