/**
 * The one port between a worker and the engine: what an attempt may ask. Every write carries the attempt's id, and the
 * step's record decides: an older attempt changes nothing.
 */
import { randomUUID } from 'node:crypto'
import type { Lane, StepProgress } from '../domains/operation.ts'
import type { Went } from '../domains/postprocessing/analytics/counts.ts'
import type { WantedModel } from '../domains/values.ts'
import type { WorkerRecord } from '../farm/record.ts'
import type { Catalogue } from '../models/catalogue.ts'
import { DarkroomError, type WireError, workflowError } from '../errors.ts'
import { splitJobId, splitStepKey } from '../keys.ts'
import { traceOf } from '../trace.ts'
import { connect, type Redis } from '../redis.ts'
import type { Next } from './commit.ts'
import { Engine, type EngineOptions } from './engine.ts'
import type { SessionOwners } from './owners.ts'
import { areAmong, needsOf } from './placement.ts'
import type { PlannedStep } from './plan.ts'
import type { AtPoint } from './points.ts'
import type { State } from './reads.ts'
import type { Progress } from './session.ts'
import type { Cause, Checkpoint, Desired, Lease } from './store.ts'
import type { Times } from './times.ts'
import { doneEvent, errorEvent, idOf } from './transition.ts'

export type { Checkpoint } from './store.ts'

/** Why a step is given back. `preempt`: for an urgent session; `child`: no Python child had taken it yet. */
export type ReleaseReason = 'pause' | 'drain' | 'preempt' | 'child'

/** Who asks: a worker with its device, and its exactness key for steps on the device. */
export interface Taker {
  worker: string
  device: string
  exactnessKey: string
}

/** A step leased to this attempt. */
export interface Attempt {
  id: string
  stepKey: string
  sessionId: string
  step: string
  invoke: string
  input: unknown
  /** Models that the step needs on its device. */
  models: readonly WantedModel[]
  epoch: number
  tries: number
  resourceTries: number
  /** Of the session; higher goes first. */
  priority: number
  /** Id of its session's trace, for log lines. */
  traceId: string
  /** Newest first. */
  checkpoints: Checkpoint[]
  state: State
  /** Of the machine, when the step was taken. */
  context: unknown
}

export type Taken = { is: 'taken'; attempt: Attempt } | { is: 'leased' | 'early'; forMs: number } | { is: 'gone' }

export interface Delivered {
  /** False when an older attempt's result changed nothing. */
  isRecorded: boolean
  /** The session's next step, leased to this attempt. */
  next?: Attempt
}

/** What a worker that brings a result would go on with. */
export interface GoingOn {
  /** Who would lease the session's next step, if it is of this lane; undefined: it goes on with none of that. */
  taker(lane: Lane): Taker | undefined
  /**
   * Told of an attempt at a step that may begin ahead, before it has its lease: it has that if `deliver` returns it,
   * and until then nothing of it can be recorded.
   */
  begin?: ((next: Attempt) => void) | undefined
  /** Awaited before the result is recorded: the store has what that names then. When it rejects, `deliver` does. */
  stored?: () => Promise<void> | undefined
}

export type Delivery = { output: unknown; artifacts: Cause['artifacts']; stats: Record<string, unknown> } | { error: DarkroomError }

const maxResourceTries = 3
/** Of the steps that wait, a worker prepares for so many. */
const lookAhead = 2
/** Between two tries of a step whose worker found a full disk, at most, ms. */
const maxDiskDelayMs = 30_000

export class AttemptPort {
  readonly at: AtPoint | undefined
  readonly owners: SessionOwners
  readonly models: Catalogue
  readonly times: Times
  readonly #engine: Engine
  readonly #connections: Redis[]
  #isClosed = false

  constructor(engine: Engine, connections: Redis[]) {
    this.at = engine.at
    this.owners = engine.owners
    this.models = engine.models
    this.times = engine.times
    this.#engine = engine
    this.#connections = connections
  }

  /** Leases the step a job speaks of. `gone`: paused, closed, or the job is an older one's; the job ends. */
  async take(jobId: string, taker: Taker): Promise<Taken> {
    const { stepKey, dispatch } = splitJobId(jobId)
    const { sessionId, suffix } = splitStepKey(stepKey)
    const id = randomUUID()
    // An answer that was lost may have been a lease: left alone it would end as one that this worker has lost.
    const reply = await this.#insist(() => this.#engine.store.take(stepKey, dispatch, { id, ...taker }))
    if (reply.is === 'leased' || reply.is === 'early') return reply
    if (reply.is !== 'taken') return { is: 'gone' }
    // Another one may come next.
    if (taker.exactnessKey !== '') this.#engine.admission.nudge()
    const state = { version: reply.version, snapshot: reply.snapshot, workflow: reply.workflow }
    const document = this.#engine.commits.document(sessionId, state)
    const [name, effect] = Object.entries(document.effects).find(([, open]) => open.suffix === suffix) ?? []
    if (name === undefined || !effect || !('step' in effect))
      throw workflowError('broken', `step ${stepKey} is open but no child of its machine`)
    const { epoch, tries, resourceTries, priority, checkpoints, trace } = reply
    return {
      is: 'taken',
      attempt: {
        id,
        stepKey,
        sessionId,
        step: effect.step,
        invoke: idOf(name),
        input: effect.input,
        models: this.#modelsOf(effect.step, effect.input),
        epoch,
        tries,
        resourceTries,
        priority,
        traceId: traceOf(sessionId, trace).id,
        checkpoints,
        state,
        context: document.context,
      },
    }
  }

  /**
   * Puts steps back that were fetched and not taken, as the job ids that name them.
   * @throws DarkroomError `redis.unavailable`
   */
  putBack(queue: string, jobIds: readonly string[], priority: number): Promise<void> {
    return this.#engine.dispatcher.addSteps(queue, jobIds, priority)
  }

  /** Models of the steps that wait in these queues, of each queue the first few. */
  async waitingModels(names: readonly string[]): Promise<WantedModel[]> {
    const { commits, dispatcher, reads } = this.#engine
    const jobs = await Promise.all(names.map((name) => dispatcher.queue(name).getJobs(['prioritized', 'waiting'], 0, lookAhead - 1, true)))
    const found = jobs.flat().map(async ({ id }): Promise<readonly WantedModel[]> => {
      const { sessionId, suffix } = splitStepKey(splitJobId(id ?? '').stepKey)
      const { version, snapshot, workflow } = await reads.fields(sessionId, 'version', 'snapshot', 'workflow')
      if (version === null || snapshot === null || workflow === null) return []
      const effect = Object.values(commits.document(sessionId, { version, snapshot, workflow }).effects).find(
        (open) => open.suffix === suffix,
      )
      return effect && 'step' in effect ? this.#modelsOf(effect.step, effect.input) : []
    })
    return (await Promise.all(found)).flat()
  }

  /** The workers of the farm, as they last published themselves. */
  workers(): Promise<readonly WorkerRecord[]> {
    return this.#engine.workers()
  }

  /** Whether the device is to begin no session now. */
  isPaused(device: string, exactnessKey: string): Promise<boolean> {
    return this.#engine.pauses.holds(device, exactnessKey)
  }

  /** Prolongs the lease; answers what is desired of the session, `yield`, or `lost`. */
  renew(attempt: Attempt): Promise<Desired> {
    return this.#engine.store.renew(attempt.stepKey, attempt.id)
  }

  /** From now on the step can go on from these bytes, which are in the store. False for an older attempt. */
  checkpoint(attempt: Attempt, checkpoint: Checkpoint): Promise<boolean> {
    return this.#engine.store.checkpoint(attempt.stepKey, attempt.id, checkpoint)
  }

  /** How the picture looks after so many calls, as a JPEG, in place of what was shown. False for an older attempt. */
  preview({ stepKey, id }: Attempt, call: number, jpeg: Uint8Array): Promise<boolean> {
    return this.#engine.previews.show({ stepKey, attemptId: id, call }, jpeg)
  }

  /** Counts how a step went. @throws DarkroomError `redis.unavailable` */
  count(step: string, input: unknown, output: unknown, went: Went): Promise<void> {
    return this.#engine.pictureAnalytics.count(step, input, output, went)
  }

  /** Lets operators alone see a picture that no session names, for so many seconds. */
  withhold(sha256: string, seconds: number): Promise<void> {
    return this.#insist(() => this.#engine.pictures.withhold(sha256, seconds))
  }

  progress(attempt: Attempt, progress: StepProgress & Pick<Progress, 'checkpoint' | 'preview'>): Promise<boolean> {
    const { call, calls, stage } = progress
    // A model that is hashed or loaded for a step is no part of its work, unless that is all it does.
    const isBefore = (stage === 'hash' || stage === 'load') && attempt.step !== `model.${stage}`
    const fraction = call !== undefined && calls && !isBefore ? Math.min(1, call / calls) : 0
    const whole = this.#engine.registry.workflow(attempt.state.workflow)?.progress(attempt.context, attempt.step, fraction) ?? {
      fraction: 0,
    }
    return this.#engine.store.progress(attempt.stepKey, attempt.id, { ...whole, step: attempt.step, ...progress })
  }

  /** A sentence for the receipt. `refusedCheckpoint`: the attempt began at call 0 after all. */
  log(attempt: Attempt, note: string): Promise<boolean> {
    return this.#insist(() => this.#engine.store.note(attempt.stepKey, attempt.id, note))
  }

  /** Gives the step back without a result; nothing is counted against the session. */
  async release(attempt: Attempt, reason: ReleaseReason, checkpoint: Checkpoint | undefined): Promise<boolean> {
    const isReleased = await this.#insist(() => this.#engine.store.release(attempt.stepKey, attempt.id, reason, checkpoint))
    this.#freed(attempt)
    return isReleased
  }

  /**
   * Records the result, or decides by the error's class: again after a while, or the machine is told. With `on`, the
   * session's next step is leased to a new attempt of that worker in the same commit, if it may be: no job and no other
   * worker comes between.
   */
  async deliver(attempt: Attempt, delivery: Delivery, on?: GoingOn): Promise<Delivered> {
    const delivered = await this.#deliver(attempt, delivery, on)
    this.#freed(attempt)
    return delivered
  }

  async #deliver(attempt: Attempt, delivery: Delivery, on?: GoingOn): Promise<Delivered> {
    const { stepKey, sessionId, step, invoke } = attempt
    this.at?.('deliver.before', sessionId)
    if ('error' in delivery) {
      const error = delivery.error.toWire()
      const again = this.#again(attempt, error)
      if (again)
        return { isRecorded: await this.#insist(() => this.#engine.store.retry(stepKey, attempt.id, again.delayMs, again.counter, error)) }
      await this.#quarantine(attempt, error)
      const entry = { type: 'step.failed' as const, key: stepKey, step, attemptId: attempt.id, error }
      return this.#apply(attempt, errorEvent(invoke, error), entry, [], on)
    }
    const { output, artifacts, stats } = delivery
    const entry = { type: 'step.completed' as const, key: stepKey, step, attemptId: attempt.id, output, stats }
    const delivered = await this.#apply(attempt, doneEvent(invoke, output), entry, artifacts, on)
    if (delivered.isRecorded && step === 'model.validate') await this.#release(output)
    if (delivered.isRecorded && step === 'inference.denoise')
      this.#engine.runs
        .note({ input: attempt.input, output, stats })
        .catch((error: unknown) => this.#engine.log.debug({ err: error }, 'how long a picture took was not noted'))
    if (!delivered.isRecorded)
      this.#engine.log.info(
        { session: sessionId, trace: attempt.traceId, step: stepKey, attempt: attempt.id },
        'a late result changed nothing',
      )
    return delivered
  }

  async #apply(
    attempt: Attempt,
    event: NonNullable<Cause['event']>,
    entry: Cause['entry'],
    artifacts: Cause['artifacts'],
    on: GoingOn | undefined,
  ): Promise<Delivered> {
    const { sessionId, stepKey } = attempt
    const cause: Cause = { kind: 'step', name: splitStepKey(stepKey).suffix, attemptId: attempt.id, event, entry, artifacts, unpin: false }
    const id = randomUUID()
    let hasBegun = false
    const chain = on && {
      leaseOf: (step: PlannedStep) => this.#leaseOf(attempt, step, id, on),
      // A commit that is sent again says the same.
      begin: (next: Next) => {
        const begins = !hasBegun && on.begin && this.#engine.registry.operations[next.step.step]?.ahead
        if (begins) on.begin?.(this.#follower(attempt, id, next))
        return (hasBegun ||= begins ?? false)
      },
      stored: () => on.stored?.(),
    }
    const { is, next } = await this.#insist(() => this.#engine.commits.applyAndChain(sessionId, cause, attempt.state, chain))
    this.at?.('deliver.after', sessionId)
    return { isRecorded: is === 'ok' || is === 'parked', ...(next && { next: this.#follower(attempt, id, next) }) }
  }

  /**
   * The lease of a step that the worker of this attempt goes on with: beside the device any but one that needs a model,
   * which goes where that is; on the device one that needs no other models than this attempt had.
   */
  #leaseOf({ step: last, models }: Attempt, { step, lane, input }: PlannedStep, attemptId: string, on: GoingOn): Lease | undefined {
    const { operations } = this.#engine.registry
    const isBeside = lane === 'host' && !operations[step]?.needs
    const stays = lane === 'gpu' && operations[last]?.lane === 'gpu' && areAmong(this.#modelsOf(step, input), models)
    const taker = isBeside || stays ? on.taker(isBeside ? 'host' : 'gpu') : undefined
    return taker && { attemptId, ...taker }
  }

  /** The attempt at what follows a step whose result is recorded with its lease. */
  #follower({ sessionId, priority, traceId }: Attempt, id: string, { step: planned, state, context }: Next): Attempt {
    const { suffix, step, invoke, input } = planned
    const models = this.#modelsOf(step, input)
    const fresh = { epoch: 1, tries: 0, resourceTries: 0, checkpoints: [] }
    return { id, stepKey: `${sessionId}.${suffix}`, sessionId, step, invoke, input, models, priority, traceId, state, context, ...fresh }
  }

  /** A model that was found broken is refused from now on; which of several it was, the field tells. */
  async #quarantine({ models, step }: Attempt, { code, field = 'model', message }: WireError): Promise<void> {
    const [model] = models
    if (code !== 'model.corrupt' || !model?.bodyHash || !/^(input\.)?model/.test(field)) return
    const { bodyHash } = model
    await this.#insist(() => this.#engine.quarantine.note(bodyHash, `${step}: ${message}`))
  }

  /** One that was read whole, and is sound, is refused no longer. */
  async #release(output: unknown): Promise<void> {
    const { isValid, bodyHash } = output as { isValid: boolean; bodyHash: string }
    if (isValid) await this.#insist(() => this.#engine.quarantine.lift(bodyHash))
  }

  #freed({ step }: Attempt): void {
    if (this.#engine.registry.operations[step]?.lane === 'gpu') this.#engine.admission.nudge()
  }

  #modelsOf(step: string, input: unknown): readonly WantedModel[] {
    return needsOf(this.#engine.registry.operations, step, input)?.models ?? []
  }

  /**
   * Retries until Redis answers. Safe: the fence makes the write idempotent, and an outage of Redis is no failure of
   * the step.
   */
  async #insist<T>(write: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await write()
      } catch (error) {
        const isAway = error instanceof DarkroomError && (error.code === 'redis.unavailable' || error.code === 'redis.full')
        if (!isAway || this.#isClosed) throw error
        this.#engine.log.warn({ err: error }, 'Redis did not take the write of an attempt; it is sent again')
        await new Promise((resolve) => setTimeout(resolve, this.#engine.times.insistMs))
      }
    }
  }

  /**
   * Transient: after 1 s · 2^k ± 20 %. Resource: soon, elsewhere; but a lost tensor is the machine's to make again. A
   * full disk is waited for, as a worker is: it is no fault of the session's.
   */
  #again(attempt: Attempt, error: WireError): { delayMs: number; counter: 'tries' | 'resourceTries' } | undefined {
    const { attempts, lane } = this.#engine.registry.operations[attempt.step] ?? { attempts: 1 }
    // A command is for one worker: what that one refuses, no other can do.
    if (lane === 'control') return undefined
    const jitter = 0.8 + 0.4 * Math.random()
    if (error.class === 'transient' && attempt.tries + 1 < attempts)
      return { delayMs: Math.round(1000 * 2 ** attempt.tries * jitter), counter: 'tries' }
    // The next placement knows who has it, if anybody has.
    if (error.code === 'model.missing') return { delayMs: Math.round(this.#engine.times.missingMs * jitter), counter: 'resourceTries' }
    if (error.code === 'disk.full')
      return { delayMs: Math.round(Math.min(maxDiskDelayMs, 500 * 2 ** attempt.resourceTries) * jitter), counter: 'resourceTries' }
    const isForMachine = error.code.startsWith('artifact.')
    if (error.class === 'resource' && !isForMachine && attempt.resourceTries < maxResourceTries)
      return { delayMs: Math.round(500 * jitter), counter: 'resourceTries' }
    return undefined
  }

  /** @throws DarkroomError `workflow.unloadable` when the folder of workflows is not there */
  openWorkflows(): Promise<void> {
    return this.#engine.openWorkflows()
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await this.#engine.close()
    for (const connection of this.#connections) connection.disconnect()
  }
}

export interface PortOptions extends Omit<EngineOptions, 'redis' | 'subscriber'> {
  redisUrl: string
}

/** An engine of this process's own behind the port: the worker computes the transitions of its results itself. */
export function openAttempts({ redisUrl, ...options }: PortOptions): AttemptPort {
  const { log } = options
  const onError = (error: Error): void => log.debug({ err: error }, 'Redis connection')
  const redis = connect(redisUrl, { patience: 'wait', onError })
  const subscriber = connect(redisUrl, { patience: 'wait', onError })
  return new AttemptPort(new Engine({ redis, subscriber, ...options }), [redis, subscriber])
}
