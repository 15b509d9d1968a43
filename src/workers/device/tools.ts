/** What operations may do with the worker's device. */
import type { AllocationInfo, AllocationRequest, DeviceMemory } from '../../domains/device-memory.ts'
import { deviceError } from '../../domains/device/errors.ts'
import type { Analytics } from '../../domains/memory/figures/analytics.ts'
import type { CachedModel } from '../../domains/model/cached.ts'
import type { DeviceTools } from '../../domains/operation.ts'
import type { Target } from '../../domains/values.ts'
import { DarkroomError } from '../../errors.ts'
import { modelError } from '../../models/errors.ts'
import { loadedBy } from '../../models/families.ts'
import type { Kind } from '../../models/verdict.ts'
import type { Reservation } from '../../farm/reservations.ts'
import type { PythonChild } from '../python/supervisor.ts'
import type { OwnDevice } from './open.ts'
import type { ModelCache } from './model-cache.ts'
import type { Owners } from './owners.ts'
import type { PressureRelief } from './pressure.ts'
import type { PromisedMemory } from './promised.ts'
import type { Quota } from './quota.ts'
import { systemRam } from './ram.ts'

export interface DeviceToolsOptions {
  target: Target
  own: OwnDevice
  owners: Owners
  relief: PressureRelief
  promised: PromisedMemory
  cache: ModelCache
  analytics: Analytics
  child: Pick<PythonChild, 'heartbeat' | 'isReady' | 'ping' | 'start'>
  quota: Quota
  /**
   * Holds so many bytes of the device for an allocation.
   * @throws DarkroomError `memory.reserved`, `memory.exhausted`
   */
  reserve(bytes: number): Promise<Reservation>
  /** Takes a sample now. Returns its time. */
  sample(): Promise<number>
  /** Publishes the worker's record with the newest report. */
  publish(): Promise<void>
}

export class OwnDeviceTools implements DeviceTools {
  readonly device: string
  readonly worker: string
  readonly epoch: string
  readonly memory: DeviceMemory
  readonly index: number | null
  readonly #options: DeviceToolsOptions

  constructor(options: DeviceToolsOptions) {
    const { own, target } = options
    this.device = target.device
    this.worker = target.worker
    this.epoch = target.epoch
    this.memory = own.memory
    this.index = own.index
    this.#options = options
  }

  async allocate(request: Omit<AllocationRequest, 'device'>): Promise<AllocationInfo> {
    const { bytes, kind = 'device' } = request
    const { analytics, own, relief } = this.#options
    if (kind === 'device' && this.index === null) {
      const why = `the native addon does not reach ${this.device}, only system RAM: ${own.reason}`
      throw deviceError('unavailable', why, { field: 'kind' })
    }
    using one = this.#options.quota.another(request.owner)
    try {
      await using _place = kind === 'device' ? await this.#options.reserve(bytes) : null
      await this.#options.sample()
      await relief.makeRoom(kind === 'device' ? 'device' : 'ram', bytes)
      const { total, used } = systemRam()
      const isRam = kind !== 'device' || this.memory.backend === 'host'
      const made = await this.#options.promised.keep({ bytes, owner: request.owner, isRam, free: Math.max(0, total - used) }, () =>
        this.memory.allocate({ ...request, device: this.index ?? 0 }),
      )
      one.made(made.id)
      analytics.allocated(made)
      return made
    } catch (error) {
      if (error instanceof DarkroomError && ['memory.exhausted', 'memory.reserved', 'memory.quota'].includes(error.code))
        analytics.refused(bytes, error.code, Date.now())
      throw error
    }
  }

  async release(id: number): Promise<AllocationInfo> {
    const info = this.memory.inspect(id)
    await this.memory.release(id)
    this.#options.analytics.ended(info, 'released')
    return info
  }

  principal(owner: string): Promise<string> {
    return this.#options.owners.principal(owner)
  }

  trimPython(idleModels: number): Promise<{ freedBytes: number | null; models: string[] } | null> {
    return this.#options.relief.trimPython(idleModels)
  }

  async dropModel(id: string, kind?: Kind): Promise<{ models: { id: string; bytes: number }[]; freedBytes: number | null }> {
    const { child } = this.#options
    if (!child.isReady) throw deviceError('not_ready', `no Python child of ${this.device} is ready now`)
    const inUse = (why: string): DarkroomError =>
      modelError('in_use', `model ${id} is in use on ${this.device}: ${why}`, { field: 'input.model' })
    // Asked now: what it said last is up to two seconds old.
    const known = (await child.ping()).models.find(
      (model) => model.id === id && (kind === undefined || loadedBy(kind).includes(model.family)),
    )
    if (known && !known.isIdle) throw inUse('a step draws with it or waits to')
    const outcome = await child.start('model.drop', { id, families: kind === undefined ? null : [...loadedBy(kind)] }).outcome
    if (outcome.type !== 'result') throw deviceError('not_ready', `the Python child of ${this.device} is ending`)
    if (known && outcome.output.models.length === 0) throw inUse('a step has begun to wait for it')
    return outcome.output
  }

  evictCached(id: string, kind?: Kind): CachedModel[] {
    return this.#options.cache.evict(id, kind)
  }

  async python(): Promise<{ reservedBytes: number | null; models: string[] } | null> {
    const { heartbeat } = this.#options.child
    return heartbeat ? { reservedBytes: heartbeat.deviceBytes, models: heartbeat.models.map(({ id }) => id) } : null
  }

  async publish(): Promise<number> {
    const sampledAt = await this.#options.sample()
    await this.#options.publish()
    return sampledAt
  }
}
