/** A session about to be written, as the script `createSession` takes it. */
import type { DarkroomError } from '../errors.ts'
import type { Outcome } from './outcome.ts'
import type { Effects } from './plan.ts'
import type { Entry } from './session.ts'

/** What a session takes over from another of its shard, which must be there still. */
export interface Carried {
  from: string
  /**
   * `retry`: all artifacts that the other one names. `fork`: those in `pictures` alone. `undo`: none; this undoes what
   * the other one has done, whose outbox asks for it until it is made.
   */
  as: 'retry' | 'fork' | 'undo'
  /** SHA-256 of what its steps need: kept as long as it runs. */
  scratch: readonly string[]
  /** The step `suffix` goes on from a checkpoint that the step `ofSuffix` of the other one still has, as recorded. */
  checkpoint: { suffix: string; ofSuffix: string; json: string } | undefined
}

export interface Creation {
  id: string
  idempotency: { key: string; bodySha256: string } | undefined
  deadlineMs: number | undefined
  entry: Entry
  carried: Carried | undefined
  indexes: string[]
  /** SHA-256 of the pictures that its input names. */
  pictures: readonly string[]
  fields: Record<string, string>
  effects: Effects
  /** Bytes of Redis it may still need until it ends. */
  reserve: number
  /** What each of its items has of its own, JSON. */
  items: readonly string[]
  /** What it counts as until it ends, how many of these its shard may have, and the refusal of one more. */
  counted?: { as: string; most: number; refusal: () => DarkroomError } | undefined
  /** One that has ended when it is made: its machine is final at its start, or it never begins. */
  end: Outcome | undefined
}
