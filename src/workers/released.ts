import type { Checkpoint } from '../engine/attempt.ts'

/** Thrown through the operation when the attempt was asked to stop and gives its step back; it is no failure. */
export class Released extends Error {
  readonly checkpoint: Checkpoint | undefined
  constructor(checkpoint: Checkpoint | undefined) {
    super('the attempt gave its step back')
    this.checkpoint = checkpoint
  }
}
