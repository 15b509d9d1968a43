/** From job to result: takes the step a job speaks of, runs its operation under a renewed lease, delivers what came of it. */
import { DelayedError, Worker as BullWorker, type Job } from 'bullmq'
import { randomUUID } from 'node:crypto'
import { deviceLost, type Lane, type Operation, type OperationTable } from '../domains/operation.ts'
import { DarkroomError, ensureError, sessionError, workerError, workflowError } from '../errors.ts'
import { keys } from '../keys.ts'
import type { Reservation } from '../farm/reservations.ts'
import type { Logger } from '../log.ts'
import type { Redis } from '../redis.ts'
import type { Attempt, AttemptPort, Delivery, Taker } from '../engine/attempt.ts'
import { AttemptTools, Released, type ToolsOptions } from './tools.ts'

/** A step under way. */
interface Running {
  readonly attempt: Attempt
  readonly since: number
  readonly tools: AttemptTools
  /** Of the device; held while the operation runs. */
  reservation: Reservation | undefined
  reason: 'pause' | 'drain'
  /** When the lease was last renewed, by `performance.now()`: no change of the wall clock may cost a lease. */
  renewedAt: number
  /** When the operation has taken too long, by the same clock; Infinity before it begins and after its end. */
  until: number
  /** Its outcome is being told: what is desired comes too late. */
  isDelivering: boolean
}

/** How often leases and limits are looked at, ms. */
const clockMs = 250

export interface StepRunnerOptions {
  port: AttemptPort
  operations: OperationTable
  taker(lane: Lane): Taker
  tools(attempt: Attempt): ToolsOptions
  /** Slot, memory and model of the device, for a step that runs on it. @throws DarkroomError `memory.reserved`, `memory.exhausted` */
  reserve(attempt: Attempt, signal: AbortSignal): Promise<Reservation>
  /** Steps of a session that the host lane does one after another before others, which wait in its queue, get their turn. */
  inARow: number
  log: Logger
  onCompleted?(): void
}

/** Runs steps; the lanes decide when. */
export class StepRunner {
  readonly #options: StepRunnerOptions
  readonly #running = new Map<string, Running>()
  #isDraining = false

  constructor(options: StepRunnerOptions) {
    this.#options = options
    // One clock for all attempts: timers of their own would cost short steps more than their work does.
    setInterval(() => this.#tick(), clockMs).unref()
  }

  /** What runs now, for the worker's record. */
  get running(): { key: string; step: string; session: string; since: number }[] {
    return [...this.#running.values()].map(({ attempt, since }) => ({
      key: attempt.stepKey,
      step: attempt.step,
      session: attempt.sessionId,
      since,
    }))
  }

  /** A control message came for this session: its attempts ask at once. */
  ask(sessionId: string): void {
    for (const running of this.#running.values()) if (running.attempt.sessionId === sessionId && !running.isDelivering) this.#renew(running)
  }

  #tick(): void {
    const now = performance.now()
    for (const running of this.#running.values()) {
      if (now >= running.until) running.tools.stop('timeout')
      if (now - running.renewedAt >= this.#options.port.times.renewMs - clockMs / 2) this.#renew(running)
    }
  }

  /** Prolongs the lease, and does what is desired of the session. */
  #renew(running: Running): void {
    const { port, log } = this.#options
    running.renewedAt = performance.now()
    port.renew(running.attempt).then(
      (desired) => {
        if (desired === 'lost' || desired === 'cancel') running.tools.stop(desired)
        else if (desired === 'pause') running.tools.pause()
      },
      (error: unknown) => log.warn({ step: running.attempt.stepKey, err: error }, 'the lease could not be renewed'),
    )
    running.reservation?.renew().then(
      (isHeld) => {
        if (!isHeld) log.warn({ step: running.attempt.stepKey }, 'the reservation of the device had ended; the step goes on')
      },
      (error: unknown) => log.debug({ step: running.attempt.stepKey, err: error }, 'the reservation could not be renewed'),
    )
  }

  /** From now on what runs is given back at its next call, and nothing new is taken. */
  drain(): void {
    this.#isDraining = true
    for (const running of this.#running.values()) {
      running.reason = 'drain'
      if (this.#isCommand(running)) running.tools.stop('drain')
      else running.tools.pause()
    }
  }

  /** Whether it speaks of what ends with this worker: it has no other place to go on. */
  #isCommand({ attempt }: Running): boolean {
    return this.#options.operations[attempt.step]?.lane === 'control'
  }

  /** Runs the step of one job. Returns when the job should be looked at again, if it should; never throws. */
  async run(jobId: string, lane: Lane): Promise<{ againAt: number } | undefined> {
    const { port, log } = this.#options
    try {
      const taken = await port.take(jobId, this.#options.taker(lane))
      if (taken.is === 'gone') return undefined
      if (taken.is !== 'taken') return { againAt: taken.until }
      let attempt: Attempt | undefined = taken.attempt
      for (let i = 1; attempt; i++) attempt = await this.#attempt(attempt, lane, lane === 'host' && i < this.#options.inARow)
    } catch (error) {
      // Redis was not there, or the engine found a broken session: the lease ends by itself and the sweep brings the step back.
      log.error({ job: jobId, err: error }, 'a step was left to the sweep')
    }
    return undefined
  }

  /** Runs it, and answers with the attempt at the session's next step, if that was leased with the result. */
  async #attempt(attempt: Attempt, lane: Lane, mayGoOn: boolean): Promise<Attempt | undefined> {
    const { port } = this.#options
    const tools = new AttemptTools(this.#options.tools(attempt))
    const running: Running = {
      attempt,
      since: Date.now(),
      tools,
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
    let isRecorded = false
    try {
      const outcome = await this.#outcome(running)
      running.isDelivering = true
      if (outcome instanceof Released) await port.release(attempt, running.reason, outcome.checkpoint)
      else if (outcome) {
        const goesOn = mayGoOn && 'output' in outcome && !this.#isDraining
        const delivered = await port.deliver(attempt, outcome, goesOn ? this.#options.taker(lane) : undefined)
        isRecorded = delivered.isRecorded && 'output' in outcome
        if (isRecorded) this.#options.onCompleted?.()
        return delivered.next
      }
      return undefined
    } finally {
      if (!isRecorded) await tools.takeBack()
      this.#running.delete(attempt.id)
      await tools.close()
    }
  }

  /** Runs it; a step on the device holds its place there meanwhile, and gives it back however it ends. */
  async #run(running: Running, operation: Operation): Promise<unknown> {
    const { attempt, tools } = running
    if (operation.lane !== 'gpu') return operation.run(attempt.input, tools)
    await using reservation = await this.#options.reserve(attempt, tools.signal).catch((error: unknown) => {
      if (error instanceof DarkroomError && error.code.startsWith('memory.')) throw error
      throw new Unreserved('the device could not be reserved', { cause: error })
    })
    running.reservation = reservation
    try {
      return await operation.run(attempt.input, tools)
    } finally {
      running.reservation = undefined
    }
  }

  /** What came of the operation; undefined when there is nobody to tell: cancelled, or somebody else has the step. */
  async #outcome(running: Running): Promise<Delivery | Released | undefined> {
    const { attempt, tools } = running
    const operation = this.#options.operations[attempt.step]
    if (!operation) return { error: workflowError('broken', `this worker has no operation ${attempt.step}`) }
    running.until = performance.now() + operation.timeoutMs
    try {
      if (tools.stopped) throw sessionError('cancelled', 'it was stopped before it began')
      const output = await this.#run(running, operation)
      return tools.isUnheard ? undefined : { output, artifacts: tools.kept, stats: tools.stats }
    } catch (thrown) {
      if (thrown instanceof Released) return thrown
      if (thrown instanceof Unreserved) throw thrown.cause
      if (tools.isUnheard) return undefined
      const error =
        tools.stopped === 'drain'
          ? deviceLost(`worker ${this.#options.taker(operation.lane).worker} is ending, and with it what it holds of its device`)
          : tools.stopped
            ? workerError('timeout', `${attempt.step} took longer than its ${operation.timeoutMs} ms`)
            : ensureError(thrown, 'worker.failed')
      this.#options.log.warn({ step: attempt.stepKey, name: attempt.step, err: error }, 'an attempt failed')
      return { error }
    } finally {
      running.until = Infinity
    }
  }
}

/** Redis gave no answer to a reservation: not the step's fault, so nothing is told, and the sweep brings it back. */
class Unreserved extends Error {}

export interface LaneOptions {
  redis: Redis
  runner: StepRunner
  log: Logger
}

export interface LaneHandle {
  /** Takes nothing more, and waits for what runs. */
  close(): Promise<void>
}

// BullMQ's own stall check is a second net only; leases bring steps back long before.
const bull = {
  lockDuration: 60_000,
  stalledInterval: 30_000,
  maxStalledCount: 1_000_000,
  // After Redis was away, for what a job still has to tell; 15 s by default.
  runRetryDelay: 500,
  removeOnComplete: { count: 0 },
  removeOnFail: { count: 0 },
}

/** Steps beside the device, CPU work or commands: one queue, `concurrency` at a time. */
export function openLane(lane: 'host' | 'control', queue: string, concurrency: number, options: LaneOptions): LaneHandle {
  const { redis, runner, log } = options
  const worker = new BullWorker(
    queue,
    async (job: Job, token?: string) => {
      const again = await runner.run(job.id ?? '', lane)
      if (!again) return
      await job.moveToDelayed(again.againAt, token)
      throw new DelayedError()
    },
    { connection: redis, prefix: keys.queuePrefix(queue), concurrency, ...bull },
  )
  worker.on('error', (error) => log.debug({ queue, err: error }, 'BullMQ'))
  return { close: () => worker.close() }
}

export interface DeviceLaneOptions extends LaneOptions {
  queues: string[]
  /** Whether the device can be used just now: a step taken without it would only fail. */
  isOpen(): boolean
}

/**
 * Steps on the device: several queues, the first served first, one step at a time. BullMQ's own loop serves one queue and blocks on it, so
 * this lane fetches by hand; the dispatcher's wake spares it the wait, a poll every second makes up for a lost one.
 */
export class DeviceLane implements LaneHandle {
  readonly #options: DeviceLaneOptions
  readonly #workers: BullWorker[]
  readonly #subscriber: Redis
  #isClosing = false
  #wake: () => void = () => undefined
  /** A wake that came while the lane was busy must not be lost. */
  #isWoken = false
  #loop: Promise<void>

  constructor(options: DeviceLaneOptions) {
    this.#options = options
    this.#workers = options.queues.map((queue) => {
      const worker = new BullWorker(queue, null, { connection: options.redis, prefix: keys.queuePrefix(queue), autorun: false, ...bull })
      worker.on('error', (error) => options.log.debug({ queue, err: error }, 'BullMQ'))
      return worker
    })
    this.#subscriber = options.redis.duplicate()
    this.#subscriber.on('error', (error: Error) => options.log.debug({ err: error }, 'Redis connection'))
    this.#subscriber.on('message', () => this.#ring())
    this.#loop = this.#run()
  }

  #ring(): void {
    this.#isWoken = true
    this.#wake()
  }

  async #run(): Promise<void> {
    const { log, queues } = this.#options
    await this.#subscriber.subscribe(...queues.map(keys.wake)).catch((error: unknown) => log.debug({ err: error }, 'subscribe'))
    for (const worker of this.#workers) await worker.startStalledCheckTimer()
    while (!this.#isClosing) {
      this.#isWoken = false
      const ran = await this.#runOne().catch((error: unknown) => {
        log.debug({ err: error }, 'the device lane could not fetch')
        return false
      })
      if (ran || (this.#isWoken && this.#options.isOpen()) || this.#isClosing) continue
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, this.#options.isOpen() ? 1000 : 100)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }

  async #runOne(): Promise<boolean> {
    if (!this.#options.isOpen()) return false
    const token = randomUUID()
    for (const worker of this.#workers) {
      const job = await worker.getNextJob(token, { block: false })
      if (!job) continue
      const keepLock = setInterval(() => void job.extendLock(token, bull.lockDuration).catch(() => undefined), bull.lockDuration / 3)
      try {
        const again = await this.#options.runner.run(job.id ?? '', 'gpu')
        if (again) await job.moveToDelayed(again.againAt, token)
        else await job.moveToCompleted(null, token, false)
      } finally {
        clearInterval(keepLock)
      }
      return true
    }
    return false
  }

  async close(): Promise<void> {
    this.#isClosing = true
    this.#ring()
    await this.#loop
    this.#subscriber.disconnect()
    await Promise.all(this.#workers.map((worker) => worker.close()))
  }
}
