/** The lanes of a worker: from jobs of BullMQ's queues to steps of the runner. */
import { Worker as BullWorker, type Job } from 'bullmq'
import { randomUUID } from 'node:crypto'
import { Bell } from '../bell.ts'
import type { Lane as LaneName } from '../domains/operation.ts'
import type { JobData } from '../engine/dispatch.ts'
import { keys, stepsOfJob } from '../keys.ts'
import type { Logger } from '../log.ts'
import type { Redis } from '../redis.ts'
import type { StepRunner } from './runner.ts'

export interface LaneOptions {
  redis: Redis
  runner: Pick<StepRunner, 'run'>
  log: Logger
  lane: LaneName
  /** The first is served first; the others while nothing runs. */
  queues: string[]
  /** Steps that run at a time, */
  size: number
  /** and of the commands of one API key. */
  ofOneKey?: number
  /** Whether the lane can run any step now: one taken without the device would only fail. */
  isOpen?(): boolean
  /** Whether the device begins no session now. What it has begun comes by its own queue, the first of `queues`. */
  isPaused?(): Promise<boolean>
  /** Puts steps that were fetched and did not begin back into their queue. @throws DarkroomError `redis.unavailable` */
  putBack(queue: string, jobIds: readonly string[], priority: number): Promise<void>
}

/** How often a lane looks for jobs without a wake, and while its device cannot be used, ms. */
const pollMs = 1000
const closedPollMs = 100
/** When a command is looked at again whose key runs as many as it may here, ms. */
const otherTurnMs = 500

/** BullMQ's own stall check is a second net only; leases bring steps back long before. */
const bull = {
  autorun: false,
  lockDuration: 60_000,
  stalledInterval: 30_000,
  maxStalledCount: 1_000_000,
  removeOnComplete: { count: 0 },
  removeOnFail: { count: 0 },
}

type StepJob = Job<JobData>

/** BullMQ counts by this process' clock. */
const putOff = (job: StepJob, ms: number, token: string): Promise<void> => job.moveToDelayed(Date.now() + ms, token)

/**
 * Some queues, `size` steps at a time. BullMQ's own loop serves one queue, blocks on it, and counts jobs; here a job
 * may name several steps, so the lane fetches jobs by hand. The dispatcher's wake ends its pause; polling makes up for
 * a wake that was lost. A step whose operation `leavesDevice` makes room for the next one before its result is
 * recorded.
 */
export class Lane {
  readonly #options: LaneOptions
  readonly #workers: BullWorker<JobData>[]
  readonly #subscriber: Redis
  /** Rung by the dispatcher's wake, and by a step that makes room: one that comes while the lane is busy is kept. */
  readonly #bell = new Bell()
  readonly #loop: Promise<void>
  /** Jobs that are not over. */
  readonly #under = new Set<Promise<void>>()
  /** Steps that take room. */
  #running = 0
  /** Of these, commands of each API key. */
  readonly #ofKeys = new Map<string, number>()
  #isClosing = false

  constructor(options: LaneOptions) {
    this.#options = options
    this.#workers = options.queues.map((queue) => {
      const worker = new BullWorker<JobData>(queue, null, { connection: options.redis, prefix: keys.queuePrefix(queue), ...bull })
      worker.on('error', (error) => options.log.debug({ queue, err: error }, 'BullMQ'))
      return worker
    })
    this.#subscriber = options.redis.duplicate()
    this.#subscriber.on('error', (error: Error) => options.log.debug({ err: error }, 'Redis connection'))
    this.#subscriber.on('message', () => this.#bell.ring())
    this.#loop = this.#run()
  }

  get #isOpen(): boolean {
    return this.#options.isOpen?.() ?? true
  }

  async #run(): Promise<void> {
    const { log, queues, size } = this.#options
    this.#subscriber.subscribe(...queues.map(keys.wake)).catch((error: unknown) => log.debug({ err: error }, 'the lane only polls'))
    for (const worker of this.#workers) await worker.startStalledCheckTimer()
    while (!this.#isClosing) {
      const began =
        this.#running < size &&
        (await this.#beginOne().catch((error: unknown) => {
          log.debug({ err: error }, 'the lane could not fetch')
          return false
        }))
      if (!began && !this.#isClosing) await this.#bell.wait(this.#isOpen ? pollMs : closedPollMs)
    }
  }

  /** Begins what the next job names. False where there is none. */
  async #beginOne(): Promise<boolean> {
    if (!this.#isOpen) return false
    const token = randomUUID()
    for (const worker of this.#workers) {
      // What the device has begun, and what may go along with it, comes by the first queue; that is not held up, nor is
      // it by asking.
      if (worker !== this.#workers[0] && (this.#running > 0 || (await this.#options.isPaused?.()))) return false
      const job = (await worker.getNextJob(token, { block: false })) as StepJob | undefined
      if (!job) continue
      const over = this.#runJob(job, token).finally(() => this.#under.delete(over))
      this.#under.add(over)
      return true
    }
    return false
  }

  /** Never throws: what BullMQ is not told of a job, it finds out by its own check, and its step is not taken again. */
  async #runJob(job: StepJob, token: string): Promise<void> {
    const { log, size } = this.#options
    const steps = stepsOfJob(job)
    // Half of the room, so that two free workers share what was opened at once.
    const begun = steps.slice(0, Math.max(1, Math.ceil((size - this.#running) / 2)))
    this.#running += begun.length
    const keepLock = setInterval(() => void job.extendLock(token, bull.lockDuration).catch(() => undefined), bull.lockDuration / 3)
    try {
      const [again] = await Promise.all([
        Promise.all(begun.map((step) => this.#runStep(step, job.data.key))),
        this.#putBack(job, steps.slice(begun.length)),
      ])
      // What is held has a lease, and what is to wait an entry of the outbox; for a step alone the job is kept.
      if (steps.length === 1 && again[0]) await putOff(job, again[0].againMs, token)
      else await job.moveToCompleted(null, token, false)
    } catch (error) {
      log.debug({ job: job.id, err: error }, 'BullMQ was not told of the end of a job')
    } finally {
      clearInterval(keepLock)
    }
  }

  /** Whoever is free takes them; where that fails the sweep dispatches them. */
  async #putBack(job: StepJob, steps: readonly string[]): Promise<void> {
    if (steps.length === 0) return
    await this.#options
      .putBack(job.queueName, steps, job.priority)
      .catch((error: unknown) => this.#options.log.debug({ steps, err: error }, 'steps were not put back; the sweep dispatches them'))
  }

  async #runStep(jobId: string, key: string | undefined): ReturnType<StepRunner['run']> {
    const { lane, ofOneKey = Infinity, runner } = this.#options
    const seat = { isTaken: true }
    const others = key === undefined ? 0 : (this.#ofKeys.get(key) ?? 0)
    try {
      if (others >= ofOneKey) return { againMs: otherTurnMs }
      this.#count(key, 1)
      try {
        return await runner.run(jobId, lane, () => this.#leave(seat))
      } finally {
        this.#count(key, -1)
      }
    } finally {
      this.#leave(seat)
    }
  }

  #leave(seat: { isTaken: boolean }): void {
    if (!seat.isTaken) return
    seat.isTaken = false
    this.#running--
    this.#bell.ring()
  }

  #count(key: string | undefined, by: 1 | -1): void {
    if (key === undefined) return
    const now = (this.#ofKeys.get(key) ?? 0) + by
    if (now === 0) this.#ofKeys.delete(key)
    else this.#ofKeys.set(key, now)
  }

  /** Takes no more jobs, and waits for those that run. */
  async close(): Promise<void> {
    this.#isClosing = true
    this.#bell.ring()
    await this.#loop
    await Promise.all(this.#under)
    this.#subscriber.disconnect()
    await Promise.all(this.#workers.map((worker) => worker.close()))
  }
}
