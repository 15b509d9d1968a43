/**
 * From job to result: leases the step that a job names, runs its operation while the lease is renewed, and delivers the
 * outcome.
 */
import { EventEmitter, once } from 'node:events'
import { deviceLost, type Lane, type Operation, type OperationTable } from '../domains/operation.ts'
import { DarkroomError, ensureError, sessionError, workerError, workflowError } from '../errors.ts'
import type { Went } from '../domains/postprocessing/analytics/counts.ts'
import type { Reservation } from '../farm/reservations.ts'
import type { Logger } from '../log.ts'
import type { Attempt, AttemptPort, Delivered, Delivery, Taker } from '../engine/attempt.ts'
import { deferred } from '../promises.ts'
import { Released, Unreserved } from './released.ts'
import { isBehind, type Running } from './running.ts'
import { AttemptTools, type ToolsOptions } from './tools.ts'

/** How often leases and time-outs are checked, ms. */
const clockMs = 250

export interface StepRunnerOptions {
  port: AttemptPort
  operations: OperationTable
  /** Who leases a step of that lane. */
  taker(lane: Lane): Taker
  tools(attempt: Attempt): ToolsOptions
  /**
   * Reserves slot, memory and model of the device for a step that runs on it.
   * @throws DarkroomError `memory.reserved`, `memory.exhausted`
   */
  reserve(attempt: Attempt, signal: AbortSignal): Promise<Reservation>
  /** How many steps of a session are chained before the sessions that wait in the queue get their turn. */
  maxInARow: number
  /** Host steps that it runs at a time. */
  hostLane: number
  log: Logger
  /** A result was recorded. */
  onCompleted?(attempt: Attempt, output: unknown, went: Went): void
}

/** What every log line of an attempt says. */
const ofAttempt = ({ stepKey, traceId }: Attempt) => ({ step: stepKey, trace: traceId })

/** Runs steps; the lanes decide when. */
export class StepRunner {
  readonly #options: StepRunnerOptions
  /** Steps that each lane has tried to lease so far. */
  readonly taken: Record<Lane, number> = { gpu: 0, host: 0, control: 0 }
  readonly #running = new Map<string, Running>()
  readonly #closing = new Set<Promise<void>>()
  /** Tells `left` when a step is over, or the device does nothing more for it. */
  readonly #left = new EventEmitter().setMaxListeners(0)
  /** Sessions whose steps have begun so far. */
  #began = 0
  #isDraining = false

  constructor(options: StepRunnerOptions) {
    this.#options = options
    // One clock for all attempts: timers of their own would cost short steps more than their work does.
    setInterval(() => this.#tick(), clockMs).unref()
  }

  /** The steps that run now, for the worker's record. */
  get running(): { key: string; step: string; session: string; since: number }[] {
    return [...this.#running.values()].map(({ attempt, since }) => ({
      key: attempt.stepKey,
      step: attempt.step,
      session: attempt.sessionId,
      since,
    }))
  }

  /** Renews the leases of the session's attempts now, and so learns at once whether it is to pause or cancelled. */
  renew(sessionId: string): void {
    for (const running of this.#running.values()) if (running.attempt.sessionId === sessionId && !running.isDelivering) this.#renew(running)
  }

  #tick(): void {
    const now = performance.now()
    for (const running of this.#running.values()) {
      if (now >= running.until) running.tools.stop('timeout')
      if (now - running.renewedAt >= this.#options.port.times.renewMs - clockMs / 2) this.#renew(running)
    }
  }

  /** Prolongs the lease, and pauses or stops the attempt when the answer says so. */
  #renew(running: Running): void {
    const { port, log } = this.#options
    if (!running.isLeased) {
      running.isAsked = true
      return
    }
    running.renewedAt = performance.now()
    port.renew(running.attempt).then(
      (desired) => {
        if (desired === 'lost' || desired === 'cancel') running.tools.stop(desired)
        else if (desired === 'pause' || desired === 'yield') {
          if (!this.#isDraining) running.reason = desired === 'pause' ? 'pause' : 'preempt'
          running.tools.pause()
        }
      },
      (error: unknown) => log.warn({ ...ofAttempt(running.attempt), err: error }, 'the lease could not be renewed'),
    )
    running.reservation?.renew().then(
      (isHeld) => {
        if (!isHeld) log.warn(ofAttempt(running.attempt), 'the reservation of the device had ended; the step goes on')
      },
      (error: unknown) => log.debug({ ...ofAttempt(running.attempt), err: error }, 'the reservation could not be renewed'),
    )
  }

  /** Gives back what runs at its next call; steps that are leased from now on too. */
  drain(): void {
    this.#isDraining = true
    for (const running of this.#running.values()) {
      running.reason = 'drain'
      if (this.#isCommand(running)) running.tools.stop('drain')
      else running.tools.pause()
    }
  }

  /** Whether it is a command, bound to this worker's device epoch: no other worker can go on with it. */
  #isCommand({ attempt }: Running): boolean {
    return this.#options.operations[attempt.step]?.lane === 'control'
  }

  /**
   * Runs the step of one job. Returns when the job should be looked at again, if it should; never throws. `onLeft`:
   * told when the device has room for the next one already.
   */
  async run(jobId: string, lane: Lane, onLeft?: () => void): Promise<{ againMs: number } | undefined> {
    const { port, log } = this.#options
    try {
      const taken = await port.take(jobId, this.#take(lane))
      if (taken.is === 'gone') return undefined
      if (taken.is !== 'taken') return { againMs: taken.forMs }
      const leave = lane === 'gpu' ? onLeft : undefined
      let running: Running | undefined = this.#begin(taken.attempt, { isLeased: true }, leave)
      for (let i = 1; running; i++) running = await this.#complete(running, lane !== 'control' && i < this.#options.maxInARow, leave)
    } catch (error) {
      // Redis was away, or the engine found a broken session: the lease ends by itself and the sweep dispatches the
      // step again.
      log.error({ job: jobId, err: error }, 'a step was left to the sweep')
    }
    return undefined
  }

  #take(lane: Lane): Taker {
    this.taken[lane]++
    return this.#options.taker(lane)
  }

  /**
   * Begins it. `isLeased`: false before the commit of its session's last step, which gives it its lease; nothing that
   * it does counts until then. `before`: that step, whose files are at hand.
   */
  #begin(attempt: Attempt, { isLeased, before }: { isLeased: boolean; before?: Running }, onLeft?: () => void): Running {
    const { operations } = this.#options
    const lease = isLeased ? undefined : deferred<boolean>()
    const leaves = operations[attempt.step]?.leavesDevice && onLeft
    const tools = new AttemptTools(this.#options.tools(attempt), {
      leased: lease?.promise,
      last: before?.tools,
      reserve: () => this.#reserve(running),
      onLeft:
        leaves &&
        (() => {
          running.hasLeft = true
          this.#left.emit('left')
          giveBack(running)
          leaves()
        }),
    })
    const running: Running = {
      attempt,
      since: Date.now(),
      tools,
      outcome: Promise.resolve(undefined),
      isLeased,
      lease,
      isAsked: false,
      order: before?.order ?? ++this.#began,
      hasLeft: false,
      reservation: undefined,
      reason: 'pause',
      renewedAt: performance.now(),
      until: Infinity,
      isDelivering: false,
    }
    this.#running.set(attempt.id, running)
    if (this.#isDraining) {
      running.reason = 'drain'
      if (this.#isCommand(running)) tools.stop('drain')
      else tools.pause()
    }
    running.outcome = this.#outcome(running)
    // Heard by `#complete`.
    running.outcome.catch(() => undefined)
    return running
  }

  /**
   * Waits for its outcome, and delivers it. Returns the session's next step, which has begun meanwhile, when lease
   * chaining has leased that with the result.
   */
  async #complete(running: Running, mayChain: boolean, onLeft?: () => void): Promise<Running | undefined> {
    const { operations, port } = this.#options
    const { attempt, tools } = running
    // What runs beside the device keeps no seat there.
    if (operations[attempt.step]?.lane === 'host') onLeft?.()
    let isRecorded = false
    let next: Running | undefined
    try {
      const outcome = await running.outcome
      running.isDelivering = true
      if (outcome instanceof Released) await port.release(attempt, outcome.reason ?? running.reason, outcome.checkpoint)
      else if (outcome) {
        const ahead = (following: Attempt): void => void (next = this.#begin(following, { isLeased: false, before: running }, onLeft))
        const delivered = await this.#deliver(running, outcome, mayChain ? ahead : undefined)
        isRecorded = delivered.isRecorded && 'output' in outcome
        if (isRecorded && 'output' in outcome) {
          const { peakBytes } = tools.stats
          const seconds = (Date.now() - running.since) / 1000
          this.#options.onCompleted?.(attempt, outcome.output, { seconds, ...(typeof peakBytes === 'number' && { peakBytes }) })
        }
        if (delivered.next && next) this.#leased(next)
        else if (delivered.next) next = this.#begin(delivered.next, { isLeased: true, before: running }, onLeft)
      }
      return next?.isLeased ? next : undefined
    } finally {
      if (!isRecorded) await tools.compensate()
      this.#over(running)
      if (next && !next.isLeased) await this.#abandon(next)
    }
  }

  /** A result that names what could not be stored is none: the reason is delivered in its place. */
  async #deliver({ attempt, tools }: Running, outcome: Delivery, begin?: (next: Attempt) => void): Promise<Delivered> {
    const { port } = this.#options
    if ('error' in outcome) return port.deliver(attempt, outcome)
    let failed: unknown
    try {
      return await port.deliver(attempt, outcome, {
        taker: (lane) => begin && this.#goingOn(lane),
        begin,
        stored: () =>
          tools.made?.stored().catch((error: unknown) => {
            failed = error
            throw error
          }),
      })
    } catch (error) {
      if (failed === undefined) throw error
      return port.deliver(attempt, this.#failed(attempt, tools.lostFolder ?? ensureError(failed, 'worker.failed')))
    }
  }

  #failed(attempt: Attempt, error: DarkroomError): { error: DarkroomError } {
    this.#options.log.warn({ ...ofAttempt(attempt), name: attempt.step, err: error }, 'an attempt failed')
    return { error }
  }

  /** Host steps whose operation runs. */
  get #besideDevice(): number {
    let count = 0
    for (const { attempt, isDelivering } of this.#running.values())
      if (!isDelivering && this.#options.operations[attempt.step]?.lane === 'host') count++
    return count
  }

  /** Who goes on with a session's next step in that lane; undefined where others have its room. */
  #goingOn(lane: Lane): Taker | undefined {
    const hasRoom = lane === 'gpu' || (lane === 'host' && this.#besideDevice < this.#options.hostLane)
    return hasRoom && !this.#isDraining ? this.#take(lane) : undefined
  }

  /** The commit has given it its lease. */
  #leased(running: Running): void {
    running.isLeased = true
    running.lease?.resolve(true)
    if (running.isAsked) this.#renew(running)
  }

  /** It has begun and got no lease: another worker, or nobody, goes on with its session. */
  async #abandon(running: Running): Promise<void> {
    const { lease, tools } = running
    tools.stop('lost')
    lease?.resolve(false)
    await running.outcome.catch(() => undefined)
    await tools.compensate()
    this.#over(running)
  }

  #over({ attempt, tools }: Running): void {
    this.#running.delete(attempt.id)
    this.#left.emit('left')
    this.#close(attempt, tools)
  }

  /** Not awaited: its folder goes while the next step begins. */
  #close(attempt: Attempt, tools: AttemptTools): void {
    const closed = tools
      .close()
      ?.catch((error: unknown) => this.#options.log.warn({ ...ofAttempt(attempt), err: error }, 'the folder of an attempt was not removed'))
      .finally(() => closed && this.#closing.delete(closed))
    if (closed) this.#closing.add(closed)
  }

  /** When the folders of all attempts that have ended are gone. */
  async closed(): Promise<void> {
    await Promise.all(this.#closing)
  }

  /** Runs it; a step on the device reserves that when it comes to it, and gives it back however it ends. */
  async #run(running: Running, operation: Operation): Promise<unknown> {
    const { attempt, tools } = running
    if (operation.lane !== 'gpu') return operation.run(attempt.input, tools)
    running.until = Infinity
    await this.#turn(running)
    running.until = performance.now() + operation.timeoutMs
    try {
      return await operation.run(attempt.input, tools)
    } finally {
      giveBack(running)
    }
  }

  /** Waits while others have the device that it cannot share. */
  async #turn(running: Running): Promise<void> {
    const { tools } = running
    while (isBehind(running, this.#running.values(), this.#options.operations)) {
      await once(this.#left, 'left', { signal: AbortSignal.any([tools.signal, tools.paused]) }).catch((error: unknown) => {
        throw tools.paused.aborted && !tools.signal.aborted ? new Released(undefined) : error
      })
    }
  }

  /** Reserves the device for a step; where another one has it, it waits for that one, however long that takes. */
  async #reserve(running: Running): Promise<void> {
    const { operations } = this.#options
    const { attempt, tools } = running
    for (;;) {
      try {
        running.reservation = await this.#options.reserve(attempt, AbortSignal.any([tools.signal, tools.paused]))
        running.until = performance.now() + (operations[attempt.step]?.timeoutMs ?? 0)
        return
      } catch (error) {
        if (!(error instanceof DarkroomError && error.code.startsWith('memory.')))
          throw new Unreserved('the device could not be reserved', { cause: error })
        if (error.code !== 'memory.reserved' || tools.signal.aborted) throw error
        if (tools.paused.aborted) throw new Released(undefined)
        const isShared = [...this.#running.values()].some((other) => other !== running && other.reservation !== undefined)
        if (!isShared) throw error
        // It has not begun.
        running.until = Infinity
      }
    }
  }

  /**
   * The outcome of the operation; undefined when it is abandoned: the session was cancelled, or another attempt has the
   * step.
   */
  async #outcome(running: Running): Promise<Delivery | Released | undefined> {
    const { attempt, tools } = running
    const operation = this.#options.operations[attempt.step]
    if (!operation) return { error: workflowError('broken', `this worker has no operation ${attempt.step}`) }
    running.until = performance.now() + operation.timeoutMs
    try {
      if (tools.stopped) throw sessionError('cancelled', 'it was stopped before it began')
      const output = await this.#run(running, operation)
      return tools.isAbandoned ? undefined : { output, artifacts: tools.kept, stats: tools.stats }
    } catch (thrown) {
      if (thrown instanceof Released) return thrown
      if (thrown instanceof Unreserved) {
        if (!isAway(thrown.cause)) throw thrown.cause
        running.reason = 'drain'
        return new Released(undefined)
      }
      if (tools.isAbandoned) return undefined
      if (tools.stopped === 'drain')
        return this.#failed(
          attempt,
          deviceLost(`worker ${this.#options.taker(operation.lane).worker} is ending, and with it what it holds of its device`),
        )
      if (tools.stopped)
        return this.#failed(attempt, workerError('timeout', `${attempt.step} took longer than its ${operation.timeoutMs} ms`))
      return this.#failed(attempt, tools.lostFolder ?? ensureError(thrown, 'worker.failed'))
    } finally {
      running.until = Infinity
    }
  }
}

const isAway = (error: unknown): boolean => error instanceof DarkroomError && error.code === 'redis.unavailable'

/** Not awaited: what this worker sends next comes to Redis behind it. */
function giveBack(running: Running): void {
  void running.reservation?.[Symbol.asyncDispose]()
  running.reservation = undefined
}
