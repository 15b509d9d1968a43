/** Alerts of a device: raised and cleared after each sample; one that stands keeps its time. */
import type { Alert } from '../../domains/device/status.ts'
import type { LeakReport } from '../../domains/memory/figures/report.ts'
import type { OwnDevice } from './open.ts'
import type { PoolName } from './pressure.ts'
import type { Sample } from './report.ts'

/** °C at which a device is hot, and at which it is not any more. */
const hot = { from: 90, below: 85 }
/** An alert of a leak stays this long after the last one, ms. */
const leakAlertMs = 600_000

export class Alerts {
  readonly #standing = new Map<Alert['code'], Alert>()

  get list(): Alert[] {
    return [...this.#standing.values()]
  }

  /**
   * Whether the device does not work as it should; a missing addon does not count, for its worker draws all the same.
   */
  get isDegraded(): boolean {
    return [...this.#standing.keys()].some((code) => code !== 'native.missing')
  }

  /** `critical`: the pools whose memory pressure is critical. */
  update({ problem, usage, vitals }: Sample, { index, reason }: OwnDevice, leaks: LeakReport, critical: PoolName[]): void {
    this.#set('device.errors', problem)
    this.#set('device.hot', this.#heat(vitals.temperature))
    this.#set('device.lost', usage.lost ? 'the driver has lost the device; its worker has to be started again' : undefined)
    this.#set('native.missing', index === null ? (reason ?? 'the native addon does not reach the device') : undefined)
    this.#set('memory.pressure', critical.length > 0 ? `critical in ${critical.join(' and ')}` : undefined)
    this.#set('memory.leak', recentLeak(leaks))
  }

  #heat(temperature: number | null): string | undefined {
    const limit = this.#standing.has('device.hot') ? hot.below : hot.from
    if (temperature === null || temperature < limit) return undefined
    return `${Math.round(temperature)} °C; it slows down from about ${hot.from} °C on`
  }

  #set(code: Alert['code'], message: string | undefined): void {
    if (message === undefined) this.#standing.delete(code)
    else this.#standing.set(code, { code, message, since: this.#standing.get(code)?.since ?? Date.now() })
  }
}

function recentLeak({ byReason, newest }: LeakReport): string | undefined {
  const leak = newest.find(({ reason }) => reason === 'orphaned')
  if (!leak || Date.now() - leak.foundAt >= leakAlertMs) return undefined
  return `${byReason.orphaned.count} allocations had outlived their owners and were reclaimed`
}
