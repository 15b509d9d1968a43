/**
 * Memory pressure: how much of a pool is held by what cannot be dropped at once, and the steps that relieve it. Pure:
 * figures in, decision out; the worker carries it out.
 *
 * | level | from | a relief step may then |
 * | --- | --- | --- |
 * | `ok` | | nothing: what is idle stays until its place is needed |
 * | `elevated` | 80 % | empty caches; let go of models in the cache in RAM |
 * | `high` | 90 % | also let go of idle models, the one used longest ago first |
 * | `critical` | 95 % | refuse what is new, once nothing is left to drop |
 *
 * Offloading a model in use would come before the refusal; no model has a profile for it yet.
 */
import { levels, type Pressure } from './report.ts'
import { memoryError } from '../errors.ts'

export type Level = Pressure['level']

/** Bytes. `total` is what may be used: the budget where the system gives one. Unknown is null. */
export interface Pool {
  total: number | null
  used: number | null
}

/** What can be had again and is not in use now, bytes. */
export interface Droppable {
  /** What allocators keep without a use for it. */
  caches: number
  /** Models in the worker's cache in RAM, where that is the same memory; the one used longest ago first. */
  cachedModels?: readonly ModelBytes[]
  /** Idle models, the one used longest ago first. */
  idleModels: readonly ModelBytes[]
}

interface ModelBytes {
  id: string
  bytes: number
}

export type ReliefStep = { is: 'caches'; bytes: number } | ({ is: 'cached' | 'model' } & ModelBytes) | { is: 'refuse' }

const from: Record<Level, number> = { ok: 0, elevated: 0.8, high: 0.9, critical: 0.95 }
/**
 * A level is left only this far below where it begins, so that a value near the threshold does not toggle the level.
 */
const hysteresis = 0.03
/** Between two relief steps: the figures must show the effect of the last one, ms. */
export const dwellMs = 5000
/** Caches under this part of the pool are not worth emptying: they fill again at once. */
const worthwhile = 0.01

const rank = (level: Level): number => levels.indexOf(level)

export const evictableOf = ({ caches, cachedModels = [], idleModels }: Droppable): number =>
  [...cachedModels, ...idleModels].reduce((sum, { bytes }) => sum + bytes, caches)

/** The part of a pool that cannot be dropped at once; null when unknown. */
export function fractionOf({ total, used }: Pool, evictable: number): number | null {
  return total === null || total === 0 || used === null ? null : Math.max(0, used - evictable) / total
}

/** The level of a fraction after `previous`; nothing known changes nothing. */
export function levelOf(fraction: number | null, previous: Level): Level {
  if (fraction === null) return previous
  const holds = (level: Level): boolean => fraction >= from[level] - (rank(level) <= rank(previous) ? hysteresis : 0)
  return levels.findLast(holds) ?? 'ok'
}

export const calm = (nowMs: number): Pressure => ({
  level: 'ok',
  fraction: null,
  used: null,
  evictable: 0,
  total: null,
  since: nowMs,
  rung: null,
})

/**
 * The pressure of a pool after a new sample. A level that stands keeps its time; the last relief step (`rung`) is
 * forgotten when the level is `ok` again.
 */
export function press(before: Pressure, pool: Pool, droppable: Droppable, nowMs: number): Pressure {
  const evictable = evictableOf(droppable)
  const fraction = fractionOf(pool, evictable)
  const level = levelOf(fraction, before.level)
  return {
    level,
    fraction,
    used: pool.used,
    evictable,
    total: pool.total,
    since: level === before.level ? before.since : nowMs,
    rung: level === 'ok' ? null : before.rung,
  }
}

/**
 * The next relief step; null at level `ok` where nothing is cached, or while the effect of the last one is not to be
 * seen yet.
 * @param lastAt when the last step was done; null when none was
 */
export function nextReliefStep(pressure: Pressure, droppable: Droppable, lastAt: number | null, nowMs: number): ReliefStep | null {
  const { level, total, used } = pressure
  if (lastAt !== null && nowMs - lastAt < dwellMs) return null
  const { cachedModels = [], caches, idleModels } = droppable
  // Others who share the RAM do not ask: what is cached there goes before it is short for them.
  const [oldestCached] = cachedModels
  if (oldestCached && (fractionOf({ total, used }, 0) ?? 0) >= from.elevated) return { is: 'cached', ...oldestCached }
  if (level === 'ok') return null
  if (caches > 0 && caches >= worthwhile * (total ?? 0)) return { is: 'caches', bytes: caches }
  const [oldest] = idleModels
  if (oldest && rank(level) >= rank('high')) return { is: 'model', ...oldest }
  return level === 'critical' ? { is: 'refuse' } : null
}

/** A relief step in words. */
export function describe(step: ReliefStep): string {
  if (step.is === 'caches') return `emptied caches of ${step.bytes} bytes`
  if (step.is === 'cached') return `let go of cached model ${step.id} of ${step.bytes} bytes`
  if (step.is === 'model') return `let go of idle model ${step.id} of ${step.bytes} bytes`
  return 'refuses what is new: nothing is left to drop'
}

/**
 * The relief steps that make room for `need` bytes, in their order: none when it fits. Where the figures of a pool are
 * unknown, the system itself decides.
 * @throws DarkroomError `memory.exhausted` with what is needed, free and evictable
 */
export function makeRoom(name: string, pressure: Pressure, droppable: Droppable, need: number): ReliefStep[] {
  const { level, total, used, fraction } = pressure
  if (total === null || used === null) return []
  const free = Math.max(0, total - used)
  const steps: ReliefStep[] = []
  let room = free
  if (room < need && droppable.caches > 0) {
    steps.push({ is: 'caches', bytes: droppable.caches })
    room += droppable.caches
  }
  for (const is of ['cached', 'model'] as const)
    for (const model of is === 'cached' ? (droppable.cachedModels ?? []) : droppable.idleModels) {
      if (room >= need) break
      steps.push({ is, ...model })
      room += model.bytes
    }
  if (room >= need && level !== 'critical') return steps
  const why =
    room < need
      ? `it has ${free} bytes free, and ${evictableOf(droppable)} that could be dropped`
      : `${Math.round((fraction ?? 1) * 100)} % of it is in use and cannot be dropped`
  throw memoryError('exhausted', `${need} bytes do not fit into ${name}: ${why}`, {
    details: { need, free, evictable: evictableOf(droppable), total, level },
  })
}
