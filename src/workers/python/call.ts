/** One request to the Python child, from its line to its terminal frame. */
import { DarkroomError } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { deferred, type Deferred } from '../../promises.ts'
import {
  encodeRequest,
  type Action,
  type CheckpointMade,
  type FileMade,
  type Output,
  type PreviewMade,
  type Progress,
  type ReplyData,
  type RequestData,
  type Stats,
} from './protocol.ts'

export type Outcome<A extends Action = Action> =
  | { type: 'result'; output: Output<A>; files: Record<string, FileMade>; stats: Stats }
  | { type: 'released'; checkpoint: CheckpointMade | null }

/** A call as its caller sees it. */
export interface Call<A extends Action = Action> {
  readonly requestId: string
  /** Whether the child has said that it has the request. */
  readonly isAccepted: boolean
  /**
   * Settles exactly once. Rejects with a DarkroomError: the child's own, or `worker.child_died`, `worker.child_hung`,
   * `worker.protocol`, `device.lost`.
   */
  readonly outcome: Promise<Outcome<A>>
  /** Asks it to end `released` after the denoise call that runs; work without checkpoints runs to its end. */
  pause(): void
  /** Asks it to end with `session.cancelled`. */
  cancel(): void
}

export interface CallListeners {
  progress?: (progress: Omit<Progress, 'type'>) => void
  checkpoint?: (checkpoint: CheckpointMade) => void
  preview?: (preview: PreviewMade) => void
  /** A sentence for the session's history. */
  note?: (text: string) => void
}

/** A call as the process that serves it sees it. */
export class PendingCall {
  readonly requestId: string
  readonly action: Action
  readonly outcome: Promise<Outcome>
  sent = false
  accepted = false
  settled = false
  stage: string | undefined
  /** When it was asked to stop, or has begun to run since, by `performance.now()`; undefined before. */
  stoppingSince: number | undefined
  /** Milliseconds of its recent denoise calls, as the child measures them. */
  paceMs: number | undefined
  /** What to send; empty when the request cannot be sent, and the call has rejected. */
  readonly line: Buffer
  readonly #listeners: CallListeners
  readonly #log: Logger
  readonly #settle: Pick<Deferred<Outcome>, 'resolve' | 'reject'>

  /** Never throws: a request that the protocol refuses rejects the outcome with `worker.protocol`. */
  constructor(requestId: string, action: Action, data: RequestData<Action>, log: Logger, listeners: CallListeners = {}) {
    this.requestId = requestId
    this.action = action
    this.#listeners = listeners
    this.#log = log
    const { promise, ...settle } = deferred<Outcome>()
    this.outcome = promise
    this.#settle = settle
    try {
      this.line = encodeRequest(requestId, action, data)
    } catch (error) {
      this.line = Buffer.alloc(0)
      this.reject(error as DarkroomError)
    }
  }

  /** Takes one of its frames; true when it was the terminal one. */
  frame(data: ReplyData): boolean {
    switch (data.type) {
      case 'accepted':
        this.accepted = true
        return false
      case 'progress': {
        const { type: _, ...progress } = data
        // A model that loads is not held against it.
        if (this.stage === 'load' && progress.stage !== 'load' && this.stoppingSince !== undefined) this.stoppingSince = performance.now()
        this.stage = progress.stage
        if (progress.rate) this.paceMs = 1000 / progress.rate
        this.#notify(() => this.#listeners.progress?.(progress))
        return false
      }
      case 'checkpoint': {
        const { type: _, ...checkpoint } = data
        this.#notify(() => this.#listeners.checkpoint?.(checkpoint))
        return false
      }
      case 'preview': {
        const { type: _, ...preview } = data
        this.#notify(() => this.#listeners.preview?.(preview))
        return false
      }
      case 'note':
        this.#notify(() => this.#listeners.note?.(data.text))
        return false
      case 'result':
        // decodeReply has checked the output against the action's own schema.
        this.resolve(data as Outcome)
        return true
      case 'released':
        this.resolve(data)
        return true
      case 'error':
        this.reject(errorOf(data))
        return true
    }
  }

  resolve(outcome: Outcome): void {
    this.settled = true
    this.#settle.resolve(outcome)
  }

  reject(error: DarkroomError): void {
    this.settled = true
    this.#settle.reject(error)
  }

  #notify(listener: () => void): void {
    notify(this.#log, listener, { requestId: this.requestId })
  }
}

/** The child's own error, as it came in an `error` frame. */
export function errorOf({ type: _, ...wire }: Extract<ReplyData, { type: 'error' }>): DarkroomError {
  return DarkroomError.fromWire(wire as Parameters<typeof DarkroomError.fromWire>[0])
}

/** Whether a call failed because the child had died before it took that. */
export const diedBefore = ({ isAccepted }: Pick<Call, 'isAccepted'>, error: unknown): boolean =>
  !isAccepted && error instanceof DarkroomError && error.code === 'worker.child_died'

/** Calls a listener. One that throws is logged: it must not disturb the reading of frames. */
export function notify(log: Logger, listener: () => void, more: object = {}): void {
  try {
    listener()
  } catch (error) {
    log.error({ ...more, err: error }, 'a listener of the Python child threw')
  }
}
