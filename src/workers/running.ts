/** A step under way on a worker, and whether it is its turn at the device. */
import { isDeepStrictEqual } from 'node:util'
import type { OperationTable } from '../domains/operation.ts'
import type { Attempt, Delivery, ReleaseReason } from '../engine/attempt.ts'
import type { Reservation } from '../farm/reservations.ts'
import type { Deferred } from '../promises.ts'
import type { Released } from './released.ts'
import type { AttemptTools } from './tools.ts'

/** A step under way. */
export interface Running {
  readonly attempt: Attempt
  readonly since: number
  readonly tools: AttemptTools
  /** How its operation ended; undefined when it is abandoned. */
  outcome: Promise<Delivery | Released | undefined>
  /** False while the commit that gives it its lease is under way. */
  isLeased: boolean
  /** Tells its tools whether it has got that; undefined for one that had it from its start. */
  lease: Deferred<boolean> | undefined
  /** It was to renew its lease before it had one. */
  isAsked: boolean
  /** Of its session: the one that came to the device first has the lowest. */
  readonly order: number
  /** Whether the device does nothing more for it. */
  hasLeft: boolean
  /** Of the device; held while the operation runs. */
  reservation: Reservation | undefined
  reason: ReleaseReason
  /** When the lease was last renewed, by `performance.now()`: no change of the wall clock may cost a lease. */
  renewedAt: number
  /** When the operation times out, by the same clock; Infinity before it begins and after its end. */
  until: number
  /** Its outcome is being delivered: a pause or a cancel comes too late. */
  isDelivering: boolean
}

/** What it draws with. */
const drawnWith = ({ models }: Attempt): { id: string; bodyHash: string | null }[] =>
  models.flatMap(({ id, bodyHash, kind }) => (kind === undefined ? [{ id, bodyHash }] : []))

/**
 * Whether a step waits at the device: with other models a session is drawn there that came before. So none of these is
 * loaded between two steps of that one, and what came after keeps nobody waiting.
 */
export function isBehind(step: Running, all: Iterable<Running>, operations: OperationTable): boolean {
  const own = drawnWith(step.attempt)
  for (const other of all) {
    const isThere = operations[other.attempt.step]?.lane === 'gpu' && !other.hasLeft && other.order < step.order
    if (isThere && !isDeepStrictEqual(drawnWith(other.attempt), own)) return true
  }
  return false
}
