/**
 * Monitors the worker's device: samples it once a second, releases what has outlived its owner, relieves memory
 * pressure and composes the report that the worker publishes. The only writer of these figures; they end with the
 * worker's epoch.
 */
import type { AllocationInfo } from '../../domains/device-memory.ts'
import { deviceError } from '../../domains/device/errors.ts'
import type { PictureLimits } from '../../domains/device/status.ts'
import { view } from '../../domains/memory/allocation.ts'
import { Analytics, ownerKind, type OwnerKind } from '../../domains/memory/figures/analytics.ts'
import { evictableOf } from '../../domains/memory/figures/pressure.ts'
import type { MemoryAnalytics } from '../../domains/memory/figures/report.ts'
import type { DeviceTools } from '../../domains/operation.ts'
import type { Target } from '../../domains/values.ts'
import type { SessionOwners } from '../../engine/owners.ts'
import type { DarkroomError } from '../../errors.ts'
import type { DeviceReport } from '../../farm/record.ts'
import type { Reservation } from '../../farm/reservations.ts'
import type { Limits } from '../../limits.ts'
import type { Logger } from '../../log.ts'
import { Ticker } from '../../ticker.ts'
import type { Ready } from '../python/protocol.ts'
import type { PythonChild } from '../python/supervisor.ts'
import { Alerts } from './alerts.ts'
import type { OwnDevice } from './open.ts'
import { ModelCache } from './model-cache.ts'
import { Owners } from './owners.ts'
import { PressureRelief } from './pressure.ts'
import { PromisedMemory, type PromisedOptions } from './promised.ts'
import { Quota } from './quota.ts'
import { systemRam } from './ram.ts'
import { reportOf, takeSample, type Sample } from './report.ts'
import { Speeds } from './speeds.ts'
import { OwnDeviceTools } from './tools.ts'

const sampleMs = 1000
/** Analytics are published after every so many samples. */
const samplesPerAnalytics = 5

export interface MonitorOptions {
  target: Target
  ready: Ready
  child: PythonChild
  /** Families of models that are here. */
  families: () => string[]
  /** The most that the cache of model weights may hold; null: by what RAM is free. */
  cacheBytes: number | null
  /** What the device draws. */
  limits: PictureLimits
  sessions: Pick<SessionOwners, 'endedOf' | 'keyOf'>
  /** Of the API keys. */
  keyLimits: Limits
  log: Logger
  /** Whether a step runs on the device. */
  isBusy(): boolean
  /** Publishes the worker's record with the newest report. */
  publish(): Promise<void>
  publishAnalytics(analytics: MemoryAnalytics): Promise<void>
  /**
   * Holds so many bytes of the device for an allocation.
   * @throws DarkroomError `memory.reserved`, `memory.exhausted`
   */
  reserve(bytes: number): Promise<Reservation>
  /** Who asks for memory that is promised before it is used. */
  promises: Omit<PromisedOptions, 'own' | 'principal'>
  /** The device is lost with all that was held of it: only a new process can use it again. */
  fail(reason: DarkroomError): void
}

export class DeviceMonitor {
  /** Of model weights, in RAM. */
  readonly cache: ModelCache
  /** How fast it draws. */
  readonly speeds = new Speeds()
  /** For operations. */
  readonly tools: DeviceTools
  readonly #options: MonitorOptions
  readonly #own: OwnDevice
  readonly #analytics = new Analytics(Date.now())
  readonly #alerts = new Alerts()
  readonly #owners: Owners
  readonly #relief: PressureRelief
  readonly #promised: PromisedMemory
  readonly #ticker: Ticker
  readonly #modelBytes = new Map<string, number>()
  #samples = 0
  #report: DeviceReport | undefined
  #sampling: Promise<DeviceReport> | undefined

  constructor(own: OwnDevice, options: MonitorOptions) {
    const { child, log, sessions, target } = options
    this.#own = own
    this.#options = options
    this.#owners = new Owners({ target, memory: own.memory, sessions, analytics: this.#analytics, log })
    const principal = (owner: string): Promise<string> => this.#owners.principal(owner)
    this.#promised = new PromisedMemory({ ...options.promises, own, principal })
    this.cache = new ModelCache({
      limit: options.cacheBytes,
      promise: (bytes, left, act) => {
        const { total, used } = systemRam()
        return this.#promised.taking(bytes, Math.max(0, total - used), left, act)
      },
      onEvicted: (inodes) => this.#uncache(inodes),
      onSkipped: (id, error) => log.debug({ model: id, err: error }, 'a model was not read into RAM'),
    })
    const isRam = own.memory.backend === 'host' && own.index !== null
    this.#relief = new PressureRelief({ device: target.device, child, cache: this.cache, isRam, log })
    this.#ticker = new Ticker(
      sampleMs,
      () => this.#turn(),
      (error) => {
        if (!this.#ticker.isStopped) log.warn({ err: error }, 'the device could not be sampled')
      },
    )
    this.tools = new OwnDeviceTools({
      target,
      own,
      child,
      owners: this.#owners,
      relief: this.#relief,
      promised: this.#promised,
      cache: this.cache,
      analytics: this.#analytics,
      quota: new Quota(own.memory, options.keyLimits),
      reserve: (bytes) => options.reserve(bytes),
      sample: async () => (await this.#sample()).sampledAt,
      publish: () => options.publish(),
    })
  }

  /** Takes the first sample, and another one every second from then on. */
  async open(): Promise<void> {
    await this.#sample()
    this.#ticker.start()
  }

  /** The newest report. */
  get report(): DeviceReport {
    if (!this.#report) throw new Error('the device has not been sampled yet')
    return this.#report
  }

  /** Bytes of the device that can be reserved; null when it is unknown. */
  get capacity(): number | null {
    const { capacity } = this.#relief
    // Of a CPU, whose memory is its host's RAM: that is shared with all other workers of the host.
    const isShared = this.#own.memory.backend === 'host' && this.#own.index !== null
    return capacity === null ? null : Math.max(0, capacity - (isShared ? this.#promised.ram : 0))
  }

  /** Bytes that a model takes on the device, known once it has been there; 0 before, when the driver decides. */
  bytesOf(model: string): number {
    return this.#modelBytes.get(model) ?? 0
  }

  /** A child with a GPU maps what it loads from. */
  #uncache(inodes: number[]): void {
    const { child, log, ready } = this.#options
    if (ready.hardware.kind === 'cpu' || !child.isReady) return
    child
      .start('model.uncache', { inodes })
      .outcome.catch((error: unknown) => log.debug({ err: error }, 'the Python child still maps what the cache let go of'))
  }

  /** Releases the session's allocations if it has ended. */
  releaseIfEnded(sessionId: string): Promise<void> {
    return this.#owners.releaseIfEnded(sessionId)
  }

  async #turn(): Promise<void> {
    await this.#owners.releaseOutlived()
    // Not awaited: with Redis away the figures are still looked at.
    this.#promised.renew().catch((error: unknown) => this.#options.log.debug({ err: error }, 'promised memory was not booked'))
    await this.#sample()
    // A relief step may wait for the step that runs; the turn does not wait for it.
    void this.#relief.relieve()
    if (this.#samples % samplesPerAnalytics === 0) await this.#options.publishAnalytics(this.#analytics.summary())
  }

  /** One at a time: a caller that comes meanwhile gets the sample that is being taken. */
  #sample(): Promise<DeviceReport> {
    this.#sampling ??= this.#takeSample().finally(() => (this.#sampling = undefined))
    return this.#sampling
  }

  async #takeSample(): Promise<DeviceReport> {
    const { child, families, limits, ready, target } = this.#options
    const sample = await takeSample(this.#own, ready, child)
    this.#samples++
    for (const { id, bytes } of sample.python?.models ?? []) if (bytes !== null) this.#modelBytes.set(id, bytes)
    this.#relief.update(sample)
    this.#addToAnalytics(sample)
    const leaks = this.#owners.leaks(sample.live)
    this.#alerts.update(sample, this.#own, leaks, this.#relief.critical)
    if (sample.usage.lost) this.#options.fail(deviceError('lost', `the driver has lost ${target.device}, and what was held of it`))
    const state = this.#alerts.isDegraded ? 'degraded' : this.#options.isBusy() ? 'busy' : 'online'
    const { pressure } = this.#relief
    this.#report = reportOf(sample, {
      target,
      own: this.#own,
      ready,
      families: families(),
      measured: this.speeds.list,
      limits,
      leaks,
      state,
      alerts: this.#alerts.list,
      pressure,
      modelCache: this.cache.report,
    })
    return this.#report
  }

  #addToAnalytics({ at, figures, live, usage }: Sample): void {
    const { droppable, pressure } = this.#relief
    this.#analytics.sample({
      at,
      figures,
      usage,
      fraction: pressure.device.fraction,
      evictable: evictableOf(droppable),
      idleModelBytes: evictableOf({ ...droppable, caches: 0, cachedModels: [] }),
      owners: { session: bytesOf(live, 'session'), key: bytesOf(live, 'key') },
    })
  }

  /** Closes the memory: the epoch ends, and with it all that was held. */
  async close(): Promise<void> {
    // Not awaited: its turn may wait for a Redis that is away.
    void this.#ticker.stop()
    await this.#sampling?.catch(() => undefined)
    await this.cache.close()
    const left = await this.#own.memory.close()
    if (left.length === 0) return
    const { log, target } = this.#options
    for (const info of left) {
      const { id, owner, bytes } = view(info, target)
      log.warn({ allocation: id, owner, bytes }, 'an allocation was held until its worker ended')
    }
    const { created, released, live } = this.#report?.usage ?? { created: 0, released: 0, live: 0 }
    log.warn({ left: left.length, created, released, live }, 'the device memory was not empty at its end')
  }
}

const bytesOf = (live: AllocationInfo[], kind: OwnerKind): number =>
  live.reduce((sum, { bytes, owner }) => sum + (ownerKind(owner) === kind ? bytes : 0), 0)
