/**
 * Notices a lane that takes nothing although jobs wait for it and it has room: a loop that is stuck, a queue that somebody has halted, a
 * device that is not there. Its worker goes on publishing itself all the while, so nobody else would see it.
 */
import { Queue } from 'bullmq'
import { keys } from '../keys.ts'
import { ask, type Redis } from '../redis.ts'

/** A lane that has taken nothing for this long, at every look, is stalled, ms. */
const stallMs = 10_000

export class LaneWatch {
  readonly #queues: Queue[]
  #taken = 0
  /** Of `performance.now()`: since when jobs wait in vain. */
  #since: number | undefined

  constructor(redis: Redis, queues: string[]) {
    this.#queues = queues.map((queue) => {
      // Who dispatches into the queue writes its settings.
      const options = { connection: redis, prefix: keys.queuePrefix(queue), skipVersionCheck: true, skipMetasUpdate: true }
      return new Queue(queue, options).on('error', () => undefined)
    })
  }

  /** Looks once; `taken` counts the jobs that the lane has taken so far. @throws DarkroomError `redis.unavailable` */
  async isStalled(taken: number, hasRoom: boolean): Promise<boolean> {
    const isIdle = taken === this.#taken && hasRoom
    this.#taken = taken
    const since = this.#since
    // An outage of Redis is no fault of the lane: what was seen before it counts no more.
    this.#since = undefined
    if (!isIdle || (await this.#waiting()) === 0) return false
    this.#since = since ?? performance.now()
    return performance.now() - this.#since >= stallMs
  }

  async #waiting(): Promise<number> {
    const counts = this.#queues.map((queue) => queue.getJobCountByTypes('prioritized', 'waiting'))
    return (await ask(Promise.all(counts))).reduce((sum, count) => sum + count, 0)
  }
}
