/** The lanes of a worker: from jobs of BullMQ's queues to steps of the runner. */
import { DelayedError, Worker as BullWorker, type Job } from 'bullmq'
import { randomUUID } from 'node:crypto'
import { Bell } from '../bell.ts'
import type { CommandData } from '../engine/dispatch.ts'
import { keys } from '../keys.ts'
import type { Logger } from '../log.ts'
import { deferred } from '../promises.ts'
import type { Redis } from '../redis.ts'
import type { StepRunner } from './runner.ts'

export interface LaneOptions {
  redis: Redis
  runner: StepRunner
  log: Logger
}

export interface LaneHandle {
  /**
   * Begins anew where its loop is stuck, as one of BullMQ may be on a connection that an outage of Redis has left
   * behind; what it runs goes on.
   */
  renew?(): void
  /** Takes no more jobs, and waits for those that run. */
  close(): Promise<void>
}

/** How often the device lane looks for jobs without a wake, and while its device cannot be used, ms. */
const pollMs = 1000
const closedPollMs = 100

/** BullMQ's own stall check is a second net only; leases bring steps back long before. */
const bull = {
  lockDuration: 60_000,
  stalledInterval: 30_000,
  maxStalledCount: 1_000_000,
  // Pause before a job's end is sent again after Redis was away; 15 s by default.
  runRetryDelay: 500,
  removeOnComplete: { count: 0 },
  removeOnFail: { count: 0 },
}

/** BullMQ counts by this process' clock. */
const putOff = (job: Job, ms: number, token?: string): Promise<void> => job.moveToDelayed(Date.now() + ms, token)

/** When a command is looked at again whose key runs as many as it may here, ms. */
const otherTurnMs = 500

/**
 * Opens a lane of host steps or commands: one queue, `concurrency` at a time, and `ofOneKey` of the commands of an API
 * key.
 */
export function openLane(
  lane: 'host' | 'control',
  queue: string,
  concurrency: number,
  options: LaneOptions & { ofOneKey?: number },
): LaneHandle {
  const { redis, runner, log, ofOneKey = Infinity } = options
  const running = new Map<string, number>()
  const run = async (job: Job<CommandData>): ReturnType<StepRunner['run']> => {
    const { key } = job.data
    const others = key === undefined ? 0 : (running.get(key) ?? 0)
    if (others >= ofOneKey) return { againMs: otherTurnMs }
    if (key === undefined) return runner.run(job.id ?? '', lane)
    running.set(key, others + 1)
    try {
      return await runner.run(job.id ?? '', lane)
    } finally {
      const left = (running.get(key) ?? 1) - 1
      if (left === 0) running.delete(key)
      else running.set(key, left)
    }
  }
  const opened = (): BullWorker => {
    const made = new BullWorker(
      queue,
      async (job: Job<CommandData>, token?: string) => {
        const again = await run(job)
        if (!again) return
        await putOff(job, again.againMs, token)
        throw new DelayedError()
      },
      { connection: redis, prefix: keys.queuePrefix(queue), concurrency, ...bull },
    )
    made.on('error', (error) => log.debug({ queue, err: error }, 'BullMQ'))
    return made
  }
  let worker = opened()
  return {
    renew() {
      const stuck = worker
      worker = opened()
      stuck.close().catch((error: unknown) => log.debug({ queue, err: error }, 'BullMQ'))
    },
    close: () => worker.close(),
  }
}

export interface DeviceLaneOptions extends LaneOptions {
  queues: string[]
  /** Whether the device can be used now: a step taken without it would only fail. */
  isOpen(): boolean
  /** Whether the device begins no session now. What it has begun comes by its own queue, the first of `queues`. */
  isPaused(): Promise<boolean>
}

/**
 * The lane of steps on the device: several queues, the first served first, one step at a time. BullMQ's own loop serves
 * one queue and blocks on it, so this lane fetches jobs by hand. A step whose operation `leavesDevice` makes room for
 * the next one before its result is recorded. The dispatcher's wake ends its pause; polling makes up
 * for a wake that was lost.
 */
export class DeviceLane implements LaneHandle {
  readonly #options: DeviceLaneOptions
  readonly #workers: BullWorker[]
  readonly #subscriber: Redis
  /** Rung by the dispatcher's wake: one that comes while the lane is busy is kept. */
  readonly #bell = new Bell()
  readonly #loop: Promise<void>
  /** Jobs that are not over: one on the device, and those whose steps have left it and are being recorded. */
  readonly #under = new Set<Promise<void>>()
  #isClosing = false

  constructor(options: DeviceLaneOptions) {
    this.#options = options
    this.#workers = options.queues.map((queue) => {
      const worker = new BullWorker(queue, null, { connection: options.redis, prefix: keys.queuePrefix(queue), autorun: false, ...bull })
      worker.on('error', (error) => options.log.debug({ queue, err: error }, 'BullMQ'))
      return worker
    })
    this.#subscriber = options.redis.duplicate()
    this.#subscriber.on('error', (error: Error) => options.log.debug({ err: error }, 'Redis connection'))
    this.#subscriber.on('message', () => this.#bell.ring())
    this.#loop = this.#run()
  }

  async #run(): Promise<void> {
    const { log, queues } = this.#options
    await this.#subscriber
      .subscribe(...queues.map(keys.wake))
      .catch((error: unknown) => log.debug({ err: error }, 'the device lane only polls'))
    for (const worker of this.#workers) await worker.startStalledCheckTimer()
    while (!this.#isClosing) {
      const ran = await this.#runOne().catch((error: unknown) => {
        log.debug({ err: error }, 'the device lane could not fetch')
        return false
      })
      if (!ran && !this.#isClosing) await this.#bell.wait(this.#options.isOpen() ? pollMs : closedPollMs)
    }
  }

  async #runOne(): Promise<boolean> {
    if (!this.#options.isOpen()) return false
    const token = randomUUID()
    for (const worker of this.#workers) {
      // What the device has begun, which comes by the first queue, is not held up; nor is it by asking.
      if (worker !== this.#workers[0] && (await this.#options.isPaused())) return false
      const job = await worker.getNextJob(token, { block: false })
      if (!job) continue
      const left = deferred<void>()
      const over = this.#runJob(job, token, () => left.resolve()).finally(() => this.#under.delete(over))
      this.#under.add(over)
      await Promise.race([over, left.promise])
      return true
    }
    return false
  }

  /** Never throws: what BullMQ is not told of a job, it finds out by its own check, and its step is not taken again. */
  async #runJob(job: Job, token: string, onLeft: () => void): Promise<void> {
    const keepLock = setInterval(() => void job.extendLock(token, bull.lockDuration).catch(() => undefined), bull.lockDuration / 3)
    try {
      const again = await this.#options.runner.run(job.id ?? '', 'gpu', onLeft)
      if (again) await putOff(job, again.againMs, token)
      else {
        // Nothing that the next one needs waits for this.
        onLeft()
        await job.moveToCompleted(null, token, false)
      }
    } catch (error) {
      this.#options.log.debug({ job: job.id, err: error }, 'BullMQ was not told of the end of a job')
    } finally {
      clearInterval(keepLock)
    }
  }

  async close(): Promise<void> {
    this.#isClosing = true
    this.#bell.ring()
    await this.#loop
    await Promise.all(this.#under)
    this.#subscriber.disconnect()
    await Promise.all(this.#workers.map((worker) => worker.close()))
  }
}
