/**
 * Memory pressure of the device and of system RAM, by the newest figures, and the relief steps that the worker carries
 * out.
 */
import { calm, describe, makeRoom, nextReliefStep, press, type Droppable, type ReliefStep } from '../../domains/memory/figures/pressure.ts'
import type { Pressure, PythonMemory } from '../../domains/memory/figures/report.ts'
import type { Logger } from '../../log.ts'
import { within } from '../../promises.ts'
import type { PythonChild } from '../python/supervisor.ts'
import type { ModelCache } from './model-cache.ts'
import type { Sample } from './report.ts'

/** How long a caller waits for the Python child to trim; the step that runs comes first. */
const trimWaitMs = 5000

export type PoolName = 'device' | 'ram'
const poolNames = ['device', 'ram'] as const

interface Pool {
  pressure: Pressure
  /** What Python can drop at once. */
  droppable: Droppable
  /** When the last relief step was done; null before the first. */
  relievedAt: number | null
}

const nothing: Droppable = { caches: 0, idleModels: [] }

export interface PressureOptions {
  /** Id of the device. */
  device: string
  child: Pick<PythonChild, 'isReady' | 'start'>
  /** Of model weights, in RAM. */
  cache: Pick<ModelCache, 'report' | 'evictOldest'>
  /** Whether the device's memory is RAM as well. */
  isRam: boolean
  log: Logger
}

export class PressureRelief {
  readonly #options: PressureOptions
  readonly #pools: Record<PoolName, Pool>
  #python: PythonMemory | null = null
  #isRelieving = false

  constructor(options: PressureOptions) {
    const pool = (): Pool => ({ pressure: calm(Date.now()), droppable: nothing, relievedAt: null })
    this.#options = options
    this.#pools = { device: pool(), ram: pool() }
  }

  update({ at, figures, python, ram }: Sample): void {
    const { device, ram: host } = this.#pools
    const { total, budget, used, usedIsOwn } = figures
    this.#python = python
    const cachedModels = this.#options.cache.report.models
    device.droppable = { ...droppableOf(python), cachedModels: this.#options.isRam ? cachedModels : [] }
    host.droppable = { ...nothing, cachedModels }
    device.pressure = press(device.pressure, { total: usedIsOwn ? (budget ?? total) : total, used }, device.droppable, at)
    host.pressure = press(host.pressure, ram, host.droppable, at)
  }

  get pressure(): Record<PoolName, Pressure> {
    return { device: { ...this.#pools.device.pressure }, ram: { ...this.#pools.ram.pressure } }
  }

  /** What can be dropped of the device at once. */
  get droppable(): Droppable {
    return this.#pools.device.droppable
  }

  /** Pools whose level is critical. */
  get critical(): PoolName[] {
    return poolNames.filter((name) => this.#pools[name].pressure.level === 'critical')
  }

  /**
   * Bytes of the device that can be reserved: all but what is in use for good and cannot be dropped. null when it is
   * unknown.
   */
  get capacity(): number | null {
    const { total, used, evictable } = this.#pools.device.pressure
    if (total === null || used === null) return null
    // Models in use are held by reservations.
    const busy = this.#python?.models.reduce((sum, { bytes, isIdle }) => sum + (isIdle ? 0 : (bytes ?? 0)), 0) ?? 0
    return Math.max(0, total - Math.max(0, used - evictable - busy))
  }

  /** Does at once all relief steps that a request needs. @throws DarkroomError `memory.exhausted` */
  async makeRoom(name: PoolName, bytes: number): Promise<void> {
    const { pressure, droppable } = this.#pools[name]
    const where = name === 'ram' ? 'system RAM' : this.#options.device
    for (const step of makeRoom(where, pressure, droppable, bytes)) await this.#do(name, step)
  }

  /** Does the next relief step of each pool that is pressed. Returns at once while an earlier call is still at it. */
  async relieve(): Promise<void> {
    if (this.#isRelieving) return
    this.#isRelieving = true
    for (const name of poolNames) {
      const { pressure, droppable, relievedAt } = this.#pools[name]
      const step = nextReliefStep(pressure, droppable, relievedAt, Date.now())
      if (step)
        await this.#do(name, step).catch((error: unknown) =>
          this.#options.log.warn({ pool: name, err: error }, 'a relief step was not done'),
        )
    }
    this.#isRelieving = false
  }

  async #do(name: PoolName, step: ReliefStep): Promise<void> {
    const pool = this.#pools[name]
    pool.relievedAt = Date.now()
    if (step.is === 'cached') this.#options.cache.evictOldest()
    else if (step.is !== 'refuse') await this.trimPython(step.is === 'model' ? 1 : 0)
    const told = describe(step)
    const { level, rung: last } = pool.pressure
    if (last !== told) this.#options.log.warn({ pool: name, level }, `memory pressure: ${told}`)
    pool.pressure = { ...pool.pressure, rung: told }
  }

  /**
   * Empties Python's caches and drops up to so many idle models. null without a child, and when a step keeps the child
   * busy for some seconds.
   */
  async trimPython(idleModels: number): Promise<{ freedBytes: number | null; models: string[] } | null> {
    const { child, log } = this.#options
    if (!child.isReady) return null
    const trimmed = child.start('memory.trim', { idleModels }).outcome.then(
      (outcome) => (outcome.type === 'result' ? outcome.output : null),
      (error: unknown) => {
        log.warn({ err: error }, 'Python did not trim its memory')
        return null
      },
    )
    // It waits behind the step that runs; a late one is still done.
    return within(trimWaitMs, trimmed, null)
  }
}

/** What Python's allocator keeps beyond its tensors, and idle models whose size is known. */
function droppableOf(python: PythonMemory | null): Pick<Droppable, 'caches' | 'idleModels'> {
  if (!python) return nothing
  const { allocatedBytes, reservedBytes, models } = python
  return {
    caches: allocatedBytes === null || reservedBytes === null ? 0 : Math.max(0, reservedBytes - allocatedBytes),
    idleModels: models.flatMap(({ id, bytes, isIdle }) => (isIdle && bytes !== null ? [{ id, bytes }] : [])),
  }
}
