/** The way of checkpoints from the Python child to the store and the session's record. */
import { rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import type { Attempt, AttemptPort, Checkpoint } from '../engine/attempt.ts'
import type { Logger } from '../log.ts'
import type { MadeFiles } from './made-files.ts'
import type { CheckpointMade } from './python/protocol.ts'

/** How long the checkpoint of a pause or drain is tried to be kept, and how often, ms. */
const keepLastMs = 5000
const keepAgainMs = 500

export interface CheckpointsOptions {
  attempt: Attempt
  port: Pick<AttemptPort, 'checkpoint'>
  made: Pick<MadeFiles, 'store'>
  /** As an attempt's `Beginning`. */
  leased: Promise<boolean> | undefined
  log: Logger
}

/** Those of one attempt. */
export class Checkpoints {
  readonly #options: CheckpointsOptions
  /** Call of the last one that counts. */
  safe: number | undefined
  /** Settles when none is on its way; they are recorded one after another, beside the work. */
  recorded: Promise<void> = Promise.resolve()

  constructor(options: CheckpointsOptions) {
    this.#options = options
  }

  /** Stores and records one. Costs time after a crash, not the picture, where that fails. */
  take(made: CheckpointMade): void {
    this.recorded = this.recorded.then(() => this.#record(made))
  }

  async #record(made: CheckpointMade): Promise<void> {
    const { attempt, leased, log, port } = this.#options
    try {
      if ((await leased) === false) return
      const isRecorded = await port.checkpoint(attempt, await this.#store(made))
      if (isRecorded) this.safe = made.call
      // The store has it: a long step would fill the folder with its checkpoints.
      await rm(made.path, { force: true })
    } catch (error) {
      log.warn({ step: attempt.stepKey, err: error }, 'a checkpoint was not recorded')
    }
  }

  /**
   * The checkpoint of a pause or drain. One that cannot be kept is tried for a while, unless nobody wants it any more;
   * then the step goes on from the last one that was, which costs time and not the session.
   */
  async storeLast(made: CheckpointMade, isAbandoned: () => boolean): Promise<Checkpoint | undefined> {
    const until = performance.now() + keepLastMs
    for (;;) {
      try {
        return await this.#store(made)
      } catch (error) {
        if (isAbandoned() || performance.now() > until) {
          const { attempt, log } = this.#options
          log.warn(
            { step: attempt.stepKey, call: made.call, err: error },
            'the last checkpoint was not kept; the step goes on from the one before',
          )
          return undefined
        }
      }
      await delay(keepAgainMs)
    }
  }

  async #store(made: CheckpointMade): Promise<Checkpoint> {
    const { sha256, bytes, call } = made
    // A pause may name the one that was recorded last.
    if (call !== this.safe) await this.#options.made.store(made)
    return { sha256, bytes, call }
  }
}
