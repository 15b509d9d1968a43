/** Open steps to BullMQ jobs. A job is only a hint that says which steps to take; nothing durable lives in it. */
import { Queue, type Job } from 'bullmq'
import { claimDeserted, forgetQueue } from '../farm/presence.ts'
import type { WorkerRecord } from '../farm/record.ts'
import type { Catalogue } from '../models/catalogue.ts'
import { keys, queues, splitStepKey } from '../keys.ts'
import { translated, type Redis } from '../redis.ts'
import { placementOf, type Placement, type Waiting } from './placement.ts'
import { Bundles } from './bundles.ts'
import { mostUrgent } from './plan.ts'
import type { AtPoint } from './points.ts'
import type { Reads } from './reads.ts'
import type { Store } from './store.ts'
import type { Times } from './times.ts'

/** Entries of its events that BullMQ keeps of each queue, about. */
const eventsLength = 1000

/** The last place that BullMQ knows. */
const maxPriority = 2 ** 21 - 1

/** Steps that one job names at most. */
const maxBundled = 16

/** What a job says besides its id. */
export interface JobData {
  /** Of a command: the API key whose it is; none without keys. */
  key?: string
  /** Steps that were opened while others were being added, as the job ids of each; else its own id names one. */
  steps?: string[]
}

const jobIdOf = ({ stepKey, dispatch }: Pick<Waiting, 'stepKey' | 'dispatch'>): string => `${stepKey}.${dispatch}`

type Opened = Pick<Waiting, 'stepKey' | 'dispatch' | 'name' | 'priority'>

export interface DispatcherParts {
  redis: Redis
  store: Pick<Store, 'place'>
  reads: Pick<Reads, 'turn'>
  /** Workers that live, as they published themselves. */
  workers: () => Promise<WorkerRecord[]>
  models: Catalogue
  times: Pick<Times, 'leaseMs'>
  at: AtPoint | undefined
}

export class Dispatcher {
  readonly #parts: DispatcherParts
  readonly #queues = new Map<string, Queue>()
  /** By priority. */
  readonly #bundles = new Map<number, Bundles<Opened>>()

  constructor(parts: DispatcherParts) {
    this.#parts = parts
  }

  async place(step: Waiting): Promise<Placement> {
    const { models, workers } = this.#parts
    const ready = await workers()
    if (step.models.length > 0) await models.read()
    // Who has that name and not its hash finds it out, for this step or for the next one.
    for (const model of step.models) {
      if (model.bodyHash !== null && ready.some(({ shelf }) => models.holds(shelf, model) === 'unhashed')) await models.want(model)
    }
    return placementOf(step, ready, models)
  }

  /** Ensures that a job for this step lies in that queue. Changes nothing when another process was faster. */
  async enqueue(step: Waiting, queue: string, now: number): Promise<void> {
    const stays = step.queue === queue
    const job = stays ? await this.find(queue, jobIdOf(step)) : 'gone'
    // A worker that fetched the job and died before it took the step: BullMQ would find that out after its own, long
    // lock.
    const isAbandoned = job === 'active' && now - step.placedAt > this.#parts.times.leaseMs && step.lane !== 'control'
    if (job !== 'gone' && !isAbandoned) return
    // Only a job under another number can be added beside the one that BullMQ still knows.
    const raises = isAbandoned || (step.queue !== '' && !stays)
    const dispatch = await this.#parts.store.place(step.stepKey, step.dispatch, queue, raises)
    if (dispatch !== undefined) await this.add({ ...step, dispatch }, queue)
  }

  /** Adds the step's job to a queue. */
  async add(step: Opened, queue: string): Promise<void> {
    const { at } = this.#parts
    const { stepKey, name, priority } = step
    at?.('dispatch.before', splitStepKey(stepKey).sessionId)
    const turn = queues.isControl(queue) && priority > 0 ? await this.#turn(stepKey, queue, priority) : { priority, data: {} }
    await this.#addJob(queue, name, jobIdOf(step), turn.data, turn.priority)
    at?.('dispatch.after', splitStepKey(stepKey).sessionId)
  }

  /**
   * The same for a step that any worker may run, beside the device: one job names all that were opened while others
   * were being added, for a job costs as much as a step does.
   */
  async addHost(step: Opened): Promise<void> {
    const { at } = this.#parts
    const { stepKey, priority } = step
    at?.('dispatch.before', splitStepKey(stepKey).sessionId)
    let bundles = this.#bundles.get(priority)
    if (!bundles) {
      bundles = new Bundles(maxBundled, (steps) => this.#addTogether(steps, priority))
      this.#bundles.set(priority, bundles)
    }
    await bundles.add(step)
    at?.('dispatch.after', splitStepKey(stepKey).sessionId)
  }

  /** One alone keeps its name, by which the board shows it. */
  async #addTogether(steps: readonly Opened[], priority: number): Promise<void> {
    const [first] = steps
    if (first && steps.length === 1) return this.#addJob(queues.host, first.name, jobIdOf(first), {}, priority)
    await this.addSteps(queues.host, steps.map(jobIdOf), priority)
  }

  /** Adds one job for these steps. */
  async addSteps(queue: string, jobIds: readonly string[], priority: number): Promise<void> {
    const [first = ''] = jobIds
    if (jobIds.length === 1) return this.#addJob(queue, 'step', first, {}, priority)
    await this.#addJob(queue, 'steps', `${first}+${jobIds.length - 1}`, { steps: [...jobIds] }, priority)
  }

  async #addJob(queue: string, name: string, jobId: string, data: JobData, priority: number): Promise<void> {
    await translated(this.queue(queue).add(name, data, { jobId, ...(priority > 0 && { priority }) }))
    await translated(this.#parts.redis.publish(keys.wake(queue), ''))
  }

  /**
   * The place of a command in its queue, so that API keys take turns: as many places behind the first that waits as its
   * key has open commands before it. The data tells the lane whose it is. Programs without a key share one line.
   */
  async #turn(stepKey: string, queue: string, priority: number): Promise<{ priority: number; data: JobData }> {
    const own = await this.#parts.reads.turn(splitStepKey(stepKey).sessionId)
    if (!own) return { priority, data: {} }
    const [first] = await translated(this.queue(queue).getPrioritized(0, 0))
    const served = Math.max(0, (first?.priority ?? 0) - mostUrgent)
    return { priority: Math.min(maxPriority, priority + served + own.before), data: { key: own.key } }
  }

  /**
   * Where BullMQ has a job of that id: in a worker's hands (`active`), somewhere before that (`waiting`), or nowhere,
   * also where another job names the step beside others. One read of the job's own record, and of its state only once a
   * worker has fetched it, for BullMQ searches lists for that.
   */
  async find(queue: string, jobId: string): Promise<'waiting' | 'active' | 'gone'> {
    const job = (await translated(this.queue(queue).getJob(jobId))) as Job | undefined
    if (!job) return 'gone'
    return job.processedOn !== undefined && (await translated(job.isActive())) ? 'active' : 'waiting'
  }

  /** The queue of that name; Bull Board looks at them too. */
  queue(name: string): Queue {
    let queue = this.#queues.get(name)
    if (!queue) {
      queue = new Queue(name, {
        connection: this.#parts.redis,
        prefix: keys.queuePrefix(name),
        skipVersionCheck: true,
        // No program reads them, and the queues of devices that are gone stay.
        streams: { events: { maxLen: eventsLength } },
      })
      // The connection tells its own errors; without a listener BullMQ prints them.
      queue.on('error', () => undefined)
      this.#queues.set(name, queue)
    }
    return queue
  }

  /** The queues of the lanes that workers have now. */
  async served(): Promise<Queue[]> {
    const records = await this.#parts.workers()
    const names = new Set([
      queues.host,
      ...records.flatMap(({ exactnessKey, shelf, device: { id } }) => [
        queues.hostShelf(shelf),
        queues.gpuClass(exactnessKey),
        queues.gpuShelf(exactnessKey, shelf),
        queues.gpuDevice(id),
        queues.control(id),
      ]),
    ])
    return [...names].map((name) => this.queue(name))
  }

  /**
   * Removes the queues that no worker serves any more, with the jobs of steps that went elsewhere since: no worker
   * would take them out. What is still open is dispatched anew when a worker can run it.
   */
  async clearDeserted(): Promise<void> {
    for (const name of await claimDeserted(this.#parts.redis)) {
      await this.queue(name).obliterate({ force: true })
      await forgetQueue(this.#parts.redis, name)
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.#queues.values()].map((queue) => queue.close()))
  }
}
