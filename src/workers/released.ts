import type { Checkpoint, ReleaseReason } from '../engine/attempt.ts'

/** Thrown through the operation when the attempt was asked to stop and gives its step back; it is no failure. */
export class Released extends Error {
  readonly checkpoint: Checkpoint | undefined
  /** Where nobody had asked it to. */
  readonly reason: ReleaseReason | undefined
  constructor(checkpoint: Checkpoint | undefined, reason?: ReleaseReason) {
    super('the attempt gave its step back')
    this.checkpoint = checkpoint
    this.reason = reason
  }
}

/**
 * A reservation failed, which is no failure of the step. Where Redis did not answer the step is handed over once it
 * does; else nothing is delivered, and the sweep dispatches it again.
 */
export class Unreserved extends Error {}
