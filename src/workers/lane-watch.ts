/**
 * Notices a lane that takes no job although jobs wait for it and it has room: a queue that was paused by hand, a device
 * that is not there, a loop that is stuck. Its worker goes on publishing itself all the while, so no other process
 * would see it.
 */
import { Queue } from 'bullmq'
import { keys } from '../keys.ts'
import { translated, type Redis } from '../redis.ts'

/** A lane that has taken no job for this long, at every look, is stalled, ms. */
const stallMs = 10_000

export class LaneWatch {
  readonly #queues: Queue[]
  #taken = 0
  /** Of `performance.now()`: since when jobs wait in vain. */
  #since: number | undefined

  constructor(redis: Redis, queues: string[]) {
    this.#queues = queues.map((name) => {
      // It only counts: what a queue is like is written by those who add jobs.
      const options = { skipMetasUpdate: true, skipVersionCheck: true }
      const queue = new Queue(name, { connection: redis, prefix: keys.queuePrefix(name), ...options })
      // The connection reports its own errors; without a listener BullMQ prints them.
      queue.on('error', () => undefined)
      return queue
    })
  }

  /** Looks once; `taken` counts the jobs that the lane has taken so far. @throws DarkroomError `redis.unavailable` */
  async isStalled(taken: number, hasRoom: boolean): Promise<boolean> {
    const isIdle = taken === this.#taken && hasRoom
    this.#taken = taken
    const since = this.#since
    // An outage of Redis is no fault of the lane: what was seen before it does not count.
    this.#since = undefined
    if (!isIdle || (await this.#waiting()) === 0) return false
    this.#since = since ?? performance.now()
    return performance.now() - this.#since >= stallMs
  }

  /** Jobs of a paused queue count too: BullMQ leaves them where they wait. */
  async #waiting(): Promise<number> {
    const counts = this.#queues.map((queue) => queue.getJobCountByTypes('prioritized', 'waiting'))
    return (await translated(Promise.all(counts))).reduce((sum, count) => sum + count, 0)
  }

  async close(): Promise<void> {
    await Promise.all(this.#queues.map((queue) => queue.close()))
  }
}
