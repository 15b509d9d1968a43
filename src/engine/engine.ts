/** The durable engine: starts sessions, applies what happened to them, and answers what is known. No live actor exists between two events. */
import { randomInt, randomUUID } from 'node:crypto'
import type { z } from 'zod'
import type { Config } from '../config.ts'
import { operations as builtIn } from '../domains/index.ts'
import type { OperationTable } from '../domains/operation.ts'
import { DarkroomError, ensureError, type WireError, apiError, redisError, sessionError, workflowError } from '../errors.ts'
import { childSessionId, chooseShard, keys, newSessionId, queues, sessionIdPattern, shardOf, splitStepKey } from '../keys.ts'
import { countLoss, readWorkers } from '../farm/presence.ts'
import type { Logger } from '../log.ts'
import { discoverModels, type Model } from '../models/scan.ts'
import { ask, type Redis } from '../redis.ts'
import { Children } from './children.ts'
import { Devices } from '../farm/devices.ts'
import { Dispatcher, needsOf, place, type Waiting } from './dispatch.ts'
import { workflows as builtInWorkflows, workflowId, type Catalogue, type Workflow } from '../workflows/index.ts'
import { toMermaid } from './mermaid.ts'
import type { AtPoint } from './points.ts'
import { receiptOf } from './receipt.ts'
import { Recovery } from './recovery.ts'
import { Retention } from './retention.ts'
import {
  ended,
  type ControlVerb,
  type Progress,
  type Receipt,
  type Session,
  type SessionEvent,
  type SessionFilter,
  type SessionPage,
  type Signal,
  type Submission,
} from './session.ts'
import { type WorkerRecord } from '../farm/record.ts'
import {
  childValue,
  Store,
  type Cause,
  type Commit,
  type Creation,
  type Effects,
  type Lease,
  type PlannedSession,
  type PlannedStep,
  type StepRecord,
} from './store.ts'
import { errorEvent, PureMachine, type Document, type Loaded, type Transition } from './transition.ts'
import { modelError } from '../models/errors.ts'

export interface WorkflowInfo {
  name: string
  version: number
  title: string
  description: string
  input: z.ZodType
  output: z.ZodType
  resources: { lanes: string[]; note: string }
  /** Mermaid text of the machine. */
  diagram: string
}

export interface EngineOptions {
  redis: Redis
  /** For subscriptions; a connection of its own, because a subscriber can do nothing else. */
  subscriber: Redis
  config: Config
  log: Logger
  workflows?: readonly Workflow[]
  operations?: OperationTable
  /** Runs the sweeps; false only for a process that starts and reads sessions in tests of the others. */
  sweeps?: boolean
  /** Called at every crash point. */
  at?: AtPoint | undefined
}

/** Where a session stands, as a script or a read returned it. */
export interface State {
  version: string
  snapshot: string
  workflow: string
}

export interface Applied {
  is: 'ok' | 'stale' | 'parked' | 'ended'
  /** The step that is leased to the attempt that asked to go on, and where its session stands. */
  next?: { step: PlannedStep; state: State; context: unknown }
}

/** A child session as its parent's effect asks for it. */
export interface Child {
  id: string
  stepKey: string
  invoke: string
  workflow: string
  input: unknown
  keyId: string | null
  device: string | null
  priority: string
  depth: number
  /** Whether its first steps may be dispatched at once. */
  runs: boolean
  end?: Creation['end']
}

/** How deep children of children may go: a workflow that names itself would go on for ever. */
const maxDepth = 8

const cacheLimit = 10_000

/** What a session and its first job take in Redis, and what each step adds to that until the session ends, bytes: measured, and a little more. */
const sessionBytes = 6000
const stepBytes = 2000

export class Engine {
  readonly store: Store
  readonly dispatcher: Dispatcher
  readonly operations: OperationTable
  readonly config: Config
  readonly log: Logger
  readonly at: AtPoint | undefined
  readonly #redis: Redis
  readonly #subscriber: Redis
  readonly #workflows: Map<string, Workflow>
  readonly #machines: Map<string, PureMachine>
  readonly #recovery: Recovery
  readonly retention: Retention
  readonly children: Children
  readonly devices: Devices
  readonly #watchers = new Map<string, Set<{ entry(): void; progress(progress: Progress): void }>>()
  /** What a document's text parses to: a memo, so it cannot be stale. An entry is out while it is in use. */
  readonly #cache = new Map<string, { text: string; loaded: Loaded }>()
  #workersRead: { at: number; records: Promise<WorkerRecord[]> } = { at: -Infinity, records: Promise.resolve([]) }
  #modelsRead: { at: number; models: Promise<Model[]> } = { at: -Infinity, models: Promise.resolve([]) }
  #memoryRead = { at: -Infinity, left: Promise.resolve(Infinity), promised: 0 }

  constructor(options: EngineOptions) {
    this.#redis = options.redis
    this.#subscriber = options.subscriber
    this.config = options.config
    this.log = options.log
    this.operations = options.operations ?? builtIn
    this.at = options.at
    this.store = new Store(options.redis, options.config.shards, options.at)
    this.dispatcher = new Dispatcher(options.redis, options.at)
    const known = options.workflows ?? builtInWorkflows
    this.#workflows = new Map(known.map((workflow) => [workflowId(workflow), workflow]))
    this.#machines = new Map(known.map((workflow) => [workflowId(workflow), new PureMachine(workflow.machine)]))
    this.#subscriber.on('message', (channel: string, message: string) => this.#wake(channel, message))
    this.children = new Children(this)
    this.devices = new Devices(options.redis, () => this.workers(), options.log)
    this.#recovery = new Recovery(this)
    this.retention = new Retention(this)
    if (options.sweeps === false) return
    this.#recovery.start()
    this.retention.start()
    this.devices.watch.start()
  }

  // ---- submissions ----

  /**
   * Accepts a session. Its request is made whole here and never changes again.
   * @throws DarkroomError `workflow.unknown`, `workflow.forbidden`, `api.invalid`, `model.unknown`, `device.unknown`, `session.idempotency_mismatch`, `redis.full`, `redis.unavailable`
   */
  async start(submission: Submission): Promise<{ session: Session; created: boolean }> {
    const { idempotencyKey, bodySha256 = '', keyId } = submission
    const id = newSessionId(chooseShard(this.config.shards, idempotencyKey), Date.now())
    const idempotency = idempotencyKey === undefined ? undefined : { key: keys.idempotency(shardOf(id), keyId, idempotencyKey), bodySha256 }
    const reply = await this.#accept(submission, id, idempotency).catch(async (error: unknown) => {
      // The key of what was accepted before tells so, whatever has changed since: a full Redis, a device or a model that has gone.
      const known = idempotency && (await this.store.known(idempotency.key))
      if (!known) throw error
      return known
    })
    if (reply.created) return reply
    if (reply.id !== id && reply.bodySha256 !== bodySha256) {
      throw sessionError('idempotency_mismatch', `Idempotency-Key ${idempotencyKey} was used for another body, session ${reply.id}`, {
        field: 'Idempotency-Key',
      })
    }
    const session = await this.store.get(reply.id)
    if (!session) throw sessionError('unknown', `session ${reply.id} was deleted`)
    return { session, created: false }
  }

  async #accept(submission: Submission, id: string, idempotency: Creation['idempotency']): ReturnType<Store['create']> {
    const workflow = this.#newest(submission.workflow)
    if (workflow.scope === 'operate' && !submission.mayOperate)
      throw workflowError('forbidden', `${workflow.name} is for callers with the scope \`operate\``, { field: 'workflow' })
    const [input, device] = await Promise.all([
      this.#resolveInput(workflow, submission.input, submission.keyId, submission.mayOperate),
      this.#device(submission, workflow),
    ])
    const machine = this.#machine(workflowId(workflow))
    const first = machine.start(input, 1)
    const { keyId, tags, priority, deadlineS } = submission
    const effects = this.#planned(id, first, 10 + (9 - priority))
    const reserve = reserveOf(workflow, input)
    if (!(await this.#hasRoom(reserve))) throw full()
    const reply = await this.store.create({
      id,
      idempotency,
      deadlineMs: deadlineS === undefined ? undefined : Math.round(deadlineS * 1000),
      entry: { type: 'session.created', workflow: workflowId(workflow) },
      copyReferencesOf: undefined,
      indexes: indexesOf(workflow.name, tags, keyId),
      fields: {
        workflow: workflowId(workflow),
        input: JSON.stringify(input),
        snapshot: JSON.stringify(first.document),
        tags: JSON.stringify(tags),
        priority: String(priority),
        ...(keyId !== null && { keyId }),
        ...(device !== null && { device }),
        ...(idempotency && { idempotency: idempotency.key }),
        ...promises(workflow, input),
      },
      effects,
      reserve,
    })
    if (reply.created) void this.#dispatchNow(id, effects)
    return reply
  }

  /** The one device that the session's steps run on; null: any, or the ones that its input names. */
  async #device({ device, keyId }: Submission, { name, resources: { lanes } }: Workflow): Promise<string | null> {
    const isCommand = lanes.length > 0 && lanes.every((lane) => lane === 'control')
    if (!isCommand) return this.devices.choose(device, keyId)
    if (device !== undefined) throw apiError('invalid', `${name} is for the device that its input names`, { field: 'device' })
    return null
  }

  /** A new session that goes on from the last recorded state of a failed or cancelled one. */
  async retry(id: string, keyId: string | null): Promise<Session> {
    const old = await this.#mustGet(id)
    if (old.status !== 'failed' && old.status !== 'cancelled') throw sessionError('not_retryable', `session ${id} is ${old.status}`)
    const { status, before, snapshot, exact, strict } = await this.store.fields(id, 'status', 'before', 'snapshot', 'exact', 'strict')
    if (status === null) throw unknown(id)
    const workflow = this.#workflows.get(old.workflow)
    if (!workflow) throw workflowError('unknown', `nobody here has ${old.workflow}`)
    const document = JSON.parse(before ?? snapshot ?? 'null') as Document | null
    if (!document) throw sessionError('not_retryable', `session ${id} never began`)
    const again = this.#machine(old.workflow).restart(document, 1)
    const next = newSessionId(shardOf(id), Date.now())
    const effects = this.#planned(next, again, 10 + (9 - old.priority))
    const reserve = reserveOf(workflow, old.input)
    if (!(await this.#hasRoom(reserve))) throw full()
    await this.store.create({
      id: next,
      idempotency: undefined,
      deadlineMs: undefined,
      entry: { type: 'session.created', workflow: old.workflow, retryOf: id },
      copyReferencesOf: id,
      indexes: indexesOf(workflow.name, old.tags, keyId),
      fields: {
        workflow: old.workflow,
        input: JSON.stringify(old.input),
        snapshot: JSON.stringify(again.document),
        tags: JSON.stringify(old.tags),
        priority: String(old.priority),
        retryOf: id,
        ...(keyId !== null && { keyId }),
        ...(old.device !== null && { device: old.device }),
        ...(exact && { exact }),
        ...(strict && { strict }),
      },
      effects,
      reserve,
    })
    void this.#dispatchNow(next, effects)
    return this.#mustGet(next)
  }

  /**
   * Makes the child session that an open effect asks for, unless it is there. Whatever keeps its request from being made whole is its own
   * failure, which its parent is told. Undefined in a process that does not have its workflow.
   */
  async startChild(child: Child): Promise<void | undefined> {
    const workflow = this.#workflows.get(child.workflow)
    if (!workflow && !child.end) throw workflowError('unknown', `this process does not have ${child.workflow}`)
    const none: Effects = { closed: [], steps: [], sessions: [], timers: [], parked: '' }
    let [input, document, effects, end]: [Record<string, unknown>, Document | null, Effects, Creation['end']] = [{}, null, none, child.end]
    if (workflow && !end) {
      try {
        if (child.depth > maxDepth)
          throw workflowError('broken', `session ${child.id} would be a child ${child.depth} levels deep; ${maxDepth} are the most`)
        input = await this.#resolveInput(workflow, child.input, child.keyId)
        const first = this.#machine(child.workflow).start(input, 1)
        // It continues the work of its parent.
        effects = this.#planned(child.id, first, 0)
        ;({ document } = first)
      } catch (error) {
        const broken = ensureError(error, 'workflow.broken')
        if (broken.class === 'transient') throw broken
        ;[input, effects, end] = [{}, none, { status: 'failed', error: broken.toWire() }]
      }
    }
    const { sessionId: parent } = splitStepKey(child.stepKey)
    const reply = await this.store.create({
      id: child.id,
      idempotency: undefined,
      deadlineMs: undefined,
      entry: { type: 'session.created', workflow: child.workflow, parent },
      copyReferencesOf: undefined,
      indexes: indexesOf(child.workflow.split('@')[0] ?? '', [], child.keyId, parent),
      fields: {
        workflow: child.workflow,
        input: JSON.stringify(input),
        snapshot: JSON.stringify(document),
        tags: '[]',
        priority: child.priority,
        parent: child.stepKey,
        invoke: child.invoke,
        depth: String(child.depth),
        ...(child.keyId !== null && { keyId: child.keyId }),
        ...(child.device !== null && { device: child.device }),
        ...(workflow && !end && promises(workflow, input)),
      },
      effects,
      reserve: workflow && !end ? reserveOf(workflow, input) : 0,
      ...(end && { end }),
    })
    if (reply.created && child.runs) await this.#dispatchNow(child.id, effects)
  }

  #newest(name: string): Workflow {
    const found = [...this.#workflows.values()]
      .filter((workflow) => workflow.name === name || workflowId(workflow) === name)
      .toSorted((a, b) => b.version - a.version)[0]
    if (!found) throw workflowError('unknown', `there is no workflow ${name}`, { field: 'workflow' })
    return found
  }

  async #resolveInput(workflow: Workflow, input: unknown, keyId: string | null, mayOperate = false): Promise<Record<string, unknown>> {
    const parsed = workflow.input.safeParse(input)
    if (!parsed.success) throw invalid(parsed.error)
    const catalogue: Catalogue = {
      model: (name) => this.model(name),
      draw: (below) => randomInt(below),
      device: async (name, field) => {
        const { device, id, epoch } = await this.devices.commanded(name, keyId, field)
        return { device: device.id, worker: id, epoch }
      },
      capacity: async (target) => {
        const worker = (await this.workers()).find(({ id, epoch }) => id === target.worker && epoch === target.epoch)
        return { device: worker?.report.figures.total ?? null, ram: worker?.report.ram.total ?? null }
      },
      mayOperate,
    }
    return workflow.resolveInput(parsed.data, catalogue)
  }

  /** A model by name. @throws DarkroomError `model.unknown` */
  async model(name: string): Promise<Model> {
    const models = await this.models()
    const found = models.find((model) => model.id === name)
    if (!found) {
      const known = models.map((model) => model.id).join(', ') || 'none'
      throw modelError('unknown', `there is no model ${JSON.stringify(name)}; found: ${known}`, { field: 'input.model' })
    }
    return found
  }

  /** Models in the configured folders, read again at most every ten seconds. */
  models(): Promise<Model[]> {
    if (performance.now() - this.#modelsRead.at > 10_000)
      this.#modelsRead = { at: performance.now(), models: discoverModels(this.config.models) }
    return this.#modelsRead.models
  }

  /** Nothing new is accepted above 80 % of maxmemory, counting what open sessions may still need: what was accepted can always end. */
  async #hasRoom(reserve: number): Promise<boolean> {
    if (performance.now() - this.#memoryRead.at > 1000) {
      const left = this.store.memoryLeft()
      this.#memoryRead = { at: performance.now(), left, promised: 0 }
      left.catch(() => (this.#memoryRead.at = -Infinity))
    }
    const read = this.#memoryRead
    const bytes = sessionBytes + reserve
    if ((await read.left) < read.promised + bytes) return false
    read.promised += bytes
    return true
  }

  // ---- what happened ----

  /**
   * Applies a step's result, a timer or an event: transition, one commit, dispatch. Computes again when another event came first.
   * `state` spares the read when the caller has just seen it.
   */
  async apply(id: string, cause: Cause, state?: State, pending = ''): Promise<Applied['is']> {
    return (await this.#apply(id, cause, state, pending, undefined)).is
  }

  /** Applies a step's result, and leases the session's next step to the worker that brings it, if that runs beside the device. */
  applyAndGoOn(id: string, cause: Cause, state: State, goOn: Lease | undefined): Promise<Applied> {
    return this.#apply(id, cause, state, '', goOn)
  }

  async #apply(id: string, cause: Cause, state: State | undefined, pending: string, goOn: Lease | undefined): Promise<Applied> {
    let at = state ?? (await this.#state(id))
    while (at) {
      const commit = this.#commitFor(id, cause, at, pending, goOn)
      const reply = await this.store.commit(commit.commit)
      if (reply.is === 'conflict') {
        at = { ...at, version: reply.version, snapshot: reply.snapshot }
        continue
      }
      if (reply.is !== 'ok') return { is: reply.is === 'inbox' ? 'parked' : reply.is === 'ended' ? 'ended' : 'stale' }
      const { transition } = commit
      if (!transition) return { is: 'ok' }
      const { snapshot, effects } = commit.commit
      const taken = reply.taken ? commit.next : undefined
      if (transition.document.status === undefined) this.#remember(id, snapshot, transition)
      // Awaited, so that the next step is in its queue before the worker that brought this result looks for more.
      await this.#dispatchNow(id, taken ? { ...effects, steps: effects.steps.filter((step) => step !== taken) } : effects)
      if (reply.parent) await this.children.tellNow(id)
      const { context } = transition.snapshot as { context: unknown }
      return taken
        ? { is: 'ok', next: { step: taken, state: { ...at, version: String(Number(at.version) + 1), snapshot }, context } }
        : { is: 'ok' }
    }
    return { is: 'stale' }
  }

  #commitFor(
    id: string,
    cause: Cause,
    at: State,
    pending: string,
    goOn: Lease | undefined,
  ): { commit: Commit; transition?: Transition; next?: PlannedStep | undefined } {
    const machine = this.#machines.get(at.workflow)
    const mode: Commit['mode'] = pending ? 'inbox' : 'direct'
    const base = { id, version: at.version, cause, pending, mode, next: undefined }
    const none: Effects = { closed: [], steps: [], sessions: [], timers: [], parked: '' }
    if (!machine) return { commit: { ...base, mode: 'park', snapshot: '', outcome: undefined, effects: none } }
    try {
      const loaded = this.#load(id, machine, at.snapshot)
      const event = cause.event ?? timerEvent(loaded.document, cause.name)
      // The effect is not open any more: the script finds the same and changes nothing.
      const transition = event && machine.next(loaded, event, cause.kind === 'event' ? undefined : cause.name, Number(at.version) + 1)
      const document = transition?.document ?? loaded.document
      const effects = transition ? this.#planned(id, transition, 0) : none
      const outcome = transition && outcomeOf(transition)
      const next = goOn && !outcome ? effects.steps.find(({ lane }) => lane === 'host') : undefined
      const commit: Commit = {
        ...base,
        snapshot: JSON.stringify(document),
        outcome,
        effects,
        next: goOn && next && { ...goOn, suffix: next.suffix },
      }
      return transition ? { commit, transition, next } : { commit }
    } catch (error) {
      this.log.error({ session: id, workflow: at.workflow, err: error }, 'the workflow threw')
      const broken =
        error instanceof DarkroomError
          ? error
          : workflowError('broken', `${at.workflow} threw: ${(error as Error).message}`, { cause: error })
      // A commit like any other, so that only what may change the session may break it.
      const outcome = failure(broken.toWire())
      return { commit: { ...base, snapshot: at.snapshot, outcome, effects: none } }
    }
  }

  /** Applies what waited in the inbox, in order, until it is empty or the session rests again. False in a process without its machine, which leaves it to others. */
  async drainInbox(id: string): Promise<boolean> {
    const { workflow } = await this.store.fields(id, 'workflow')
    if (workflow !== null && !this.#machines.has(workflow)) return false
    for (;;) {
      const head = await this.store.inboxHead(id)
      if (head === null) return true
      this.at?.('inbox.before', id)
      const outcome = await this.apply(id, JSON.parse(head) as Cause, undefined, head)
      if (outcome === 'parked' || outcome === 'ended') return true
    }
  }

  async #state(id: string): Promise<State | undefined> {
    const { version, snapshot, workflow } = await this.store.fields(id, 'version', 'snapshot', 'workflow')
    return version === null || snapshot === null || workflow === null ? undefined : { version, snapshot, workflow }
  }

  /** A session's document, also of a workflow that this process does not have. */
  document(id: string, state: State): Document {
    const known = this.#cache.get(id)
    if (known?.text === state.snapshot) return known.loaded.document
    const document = JSON.parse(state.snapshot) as Document
    const machine = this.#machines.get(state.workflow)
    // What follows is its transition, most often here.
    if (machine) this.#remember(id, state.snapshot, machine.load(document))
    return document
  }

  #load(id: string, machine: PureMachine, text: string): Loaded {
    const known = this.#cache.get(id)
    this.#cache.delete(id)
    return known?.text === text ? known.loaded : machine.load(JSON.parse(text) as Document)
  }

  #remember(id: string, text: string, loaded: Loaded): void {
    this.#cache.set(id, { text, loaded })
    if (this.#cache.size > cacheLimit) this.#cache.delete(this.#cache.keys().next().value ?? '')
  }

  #machine(workflow: string): PureMachine {
    const machine = this.#machines.get(workflow)
    if (!machine) throw workflowError('unknown', `this process does not have ${workflow}`)
    return machine
  }

  workflow(id: string): Workflow | undefined {
    return this.#workflows.get(id)
  }

  // ---- dispatch ----

  /** Effects with what their dispatch needs. */
  #planned(id: string, transition: Transition, priority: number): Effects {
    const steps = transition.steps.map((step): PlannedStep => {
      const operation = this.operations[step.step]
      if (!operation) throw workflowError('broken', `there is no operation ${step.step}`)
      return { ...step, lane: operation.lane, priority }
    })
    const { effects } = transition.document
    const sessions = transition.sessions.map((opened): PlannedSession => {
      const child = childSessionId(this.config.shards, `${id}.${opened.suffix}`)
      const effect = effects[`session/${opened.invoke}`]
      // Kept beside what was asked for: the number of shards may grow, the child stays where it is.
      if (effect && 'session' in effect) effect.child = child
      return { ...opened, child }
    })
    const closed = transition.closed.map((effect) => ({
      suffix: effect.suffix,
      child: 'session' in effect && effect.child !== undefined ? childValue({ child: effect.child, workflow: effect.session }) : '',
    }))
    return { closed, steps, sessions, timers: transition.timers, parked: parkedOn(transition) }
  }

  /** Never throws: the outbox has the steps already. */
  async #dispatchNow(id: string, { steps, sessions }: Effects): Promise<void> {
    try {
      const children = sessions.map((planned) => this.children.follow(`${id}.${planned.suffix}`, childValue(planned)))
      await Promise.all([this.#dispatchSteps(id, steps), ...children])
    } catch (error) {
      this.log.warn({ session: id, err: error }, 'dispatch left to the sweep')
    }
  }

  async #dispatchSteps(id: string, steps: PlannedStep[]): Promise<void> {
    if (steps.length === 0) return
    const onDevice = steps.some((step) => step.lane === 'gpu')
    const nothing = { exactnessKey: null, lastWorker: null, device: null }
    const session = onDevice ? await this.store.fields(id, 'exactnessKey', 'lastWorker', 'device') : nothing
    await Promise.all(
      steps.map(async ({ suffix, step, lane, priority, input }) => {
        const needs = needsOf(this.operations, step, input)
        if (!needs) return
        await this.dispatch({
          stepKey: `${id}.${suffix}`,
          dispatch: 1,
          name: step,
          lane,
          priority,
          ...needs,
          avoid: null,
          ...session,
        })
      }),
    )
  }

  /** A step that nobody will run any more: its machine is told. `attemptId` is the step's last one, '' without. */
  async refuse(stepKey: string, { name, invoke, attemptId }: StepRecord, refusal: DarkroomError): Promise<void> {
    const { sessionId, suffix } = splitStepKey(stepKey)
    const error = refusal.toWire()
    await this.apply(sessionId, {
      kind: 'step',
      name: suffix,
      attemptId,
      event: errorEvent(invoke, error),
      entry: { type: 'step.failed', key: stepKey, step: name, attemptId, error },
      artifacts: [],
      unpin: false,
    })
  }

  /** Places one step and adds its job; one that has no place now stays in the outbox. */
  async dispatch(step: Waiting): Promise<ReturnType<typeof place>> {
    if (step.lane === 'host') {
      await this.dispatcher.add(step, queues.host)
      return { queue: queues.host, isAffinity: false }
    }
    const placement = place(step, await this.workers())
    if (!('queue' in placement)) return placement
    if ((await this.store.place(step.stepKey, step.dispatch, placement.queue, false)) !== undefined)
      await this.dispatcher.add(step, placement.queue)
    return placement
  }

  /** Workers that live, as they published themselves; read again at most every 300 ms. */
  workers(): Promise<WorkerRecord[]> {
    if (performance.now() - this.#workersRead.at > 300) {
      const records = readWorkers(this.#redis)
      this.#workersRead = { at: performance.now(), records }
      records.catch(() => (this.#workersRead.at = -Infinity))
    }
    return this.#workersRead.records
  }

  // ---- control and reads ----

  /**
   * Tells a session's machine something from outside. The event id makes a repeat the same signal.
   * @throws DarkroomError `session.unknown`, `session.ended`, `session.signal_unknown`
   */
  async signal(id: string, { type, data, eventId = randomUUID() }: Signal): Promise<Session> {
    const session = await this.#mustGet(id)
    const taken = this.#machines.get(session.workflow)?.signals
    if (
      taken &&
      !taken.some((pattern) => pattern === type || pattern === '*' || (pattern.endsWith('.*') && type.startsWith(pattern.slice(0, -1))))
    )
      throw sessionError(
        'signal_unknown',
        `${session.workflow} takes no signal ${type}; it takes ${taken.length > 0 ? taken.join(', ') : 'none'}`,
        { field: 'type' },
      )
    const name = `signal:${eventId}`
    const outcome = await this.apply(id, {
      kind: 'event',
      name,
      attemptId: '',
      event: { type: `signal.${type}`, ...(data !== undefined && { data }) },
      entry: { type: 'signal.received', signal: type, eventId, ...(data !== undefined && { data }) },
      artifacts: [],
      unpin: false,
    })
    const now = await this.#mustGet(id)
    // A repeat of one that was taken before the end is no news.
    if (outcome === 'ended' && (await this.store.fields(id, `seen:${name}`))[`seen:${name}`] === null)
      throw sessionError('ended', `session ${id} has ${now.status}`, { details: { status: now.status } })
    return now
  }

  /** @throws DarkroomError `session.unknown`, `session.ended` */
  async control(id: string, verb: ControlVerb): Promise<Session> {
    const reply = sessionIdPattern.test(id) ? await this.store.control(id, verb) : ({ is: 'missing' } as const)
    if (reply.is === 'missing') throw unknown(id)
    if (reply.is === 'ended') throw sessionError('ended', `session ${id} has ${reply.status}`, { details: { status: reply.status } })
    return this.#mustGet(id)
  }

  /**
   * Removes an ended session, and its children before it.
   * @throws DarkroomError `session.unknown`, `session.not_ended`
   */
  async remove(id: string): Promise<void> {
    const session = await this.#mustGet(id)
    if ((await this.#removeTree(session, Infinity, false)) === 0) throw unknown(id)
  }

  /**
   * Removes an ended session that is kept no longer, and its children before it, `most` sessions at most; a child whose parent is there is
   * left to it. Returns how many went.
   */
  async retire(id: string, most: number): Promise<number> {
    const session = await this.store.get(id)
    if (!session) await this.store.forgetEnd(id)
    else if (session.parent !== null && (await this.store.fields(session.parent, 'status')).status !== null) await this.store.spare(id)
    else return this.#removeTree(session, most, true)
    return 0
  }

  async #removeTree(session: Session, most: number, keepsKey: boolean): Promise<number> {
    const { id, parent, status, tags, keyId } = session
    if (!ended.has(status)) throw sessionError('not_ended', `session ${id} is ${status}`)
    if (parent !== null && !(await this.children.part(id)))
      throw sessionError('not_ended', `session ${id} has ${status}, but its parent ${parent} rests and has yet to take that in`)
    let gone = 0
    while (gone < most) {
      const children = await this.store.children(id, Math.min(50, most - gone))
      const share = Math.ceil((most - gone) / children.length)
      const counts = await Promise.all(children.map((child) => this.#removeChild(child, share, keepsKey)))
      const some = counts.reduce((sum, count) => sum + count, 0)
      if (some === 0) break
      gone += some
    }
    if (gone >= most) return gone
    const indexes = indexesOf(session.workflow.split('@')[0] ?? '', tags, keyId, parent)
    let reply = await this.store.remove(id, indexes, keepsKey)
    while (reply === 'untold') {
      await this.children.tell(id)
      reply = await this.store.remove(id, indexes, keepsKey)
    }
    this.#cache.delete(id)
    return reply === 'ok' ? gone + 1 : gone
  }

  /** Its parent has ended, so it is cancelled by now, or about to be. */
  async #removeChild(id: string, most: number, keepsKey: boolean): Promise<number> {
    await this.store.control(id, 'cancel')
    const session = await this.store.get(id)
    return session ? this.#removeTree(session, most, keepsKey) : 0
  }

  async get(id: string): Promise<Session | undefined> {
    return sessionIdPattern.test(id) ? this.store.get(id) : undefined
  }

  async #mustGet(id: string): Promise<Session> {
    const session = await this.get(id)
    if (!session) throw unknown(id)
    return session
  }

  list(filter: SessionFilter): Promise<SessionPage> {
    return this.store.list(filter)
  }

  history(id: string, after: number, limit: number): Promise<{ id: number; event: SessionEvent }[]> {
    return this.store.history(id, after, limit)
  }

  async receipt(id: string): Promise<Receipt | undefined> {
    const session = await this.get(id)
    return (
      session &&
      receiptOf(
        session,
        (await this.store.history(id, 0, 10_000)).map(({ event }) => event),
      )
    )
  }

  /** Calls back at each new history entry and progress frame. A lost wake is the caller's own poll's to make up for. */
  async watch(id: string, on: { entry(): void; progress(progress: Progress): void }): Promise<() => void> {
    const channel = keys.events(id)
    const watchers = this.#watchers.get(channel) ?? new Set()
    watchers.add(on)
    this.#watchers.set(channel, watchers)
    if (watchers.size === 1) await ask(this.#subscriber.subscribe(channel))
    return () => {
      watchers.delete(on)
      if (watchers.size > 0 || !this.#watchers.delete(channel)) return
      this.#subscriber.unsubscribe(channel).catch((error: unknown) => this.log.debug({ err: error }, 'unsubscribe failed'))
    }
  }

  #wake(channel: string, message: string): void {
    for (const on of this.#watchers.get(channel) ?? []) {
      if (message === '') on.entry()
      else on.progress(JSON.parse(message) as Progress)
    }
  }

  /** Whether a session names the artifact; with a key, one of that key's sessions. */
  async names(sha256: string, keyId: string | null): Promise<boolean> {
    for (let shard = 0; shard < this.config.shards; shard++) {
      const ids = await this.store.namers(shard, sha256)
      if (keyId === null && ids.length > 0) return true
      const owners = await Promise.all(ids.map((id) => this.store.fields(id, 'keyId')))
      if (owners.some((owner) => owner.keyId === keyId)) return true
    }
    return false
  }

  /** Those of these sessions that the API key has submitted. */
  async submittedBy(keyId: string, ids: readonly string[]): Promise<ReadonlySet<string>> {
    const owners = await Promise.all(ids.map((id) => this.store.fields(id, 'keyId')))
    return new Set(ids.filter((_, i) => owners[i]?.keyId === keyId))
  }

  /** A worker lost this session's attempt; the worker reads the count and drains itself when it is too high. */
  countLoss(worker: string, sessionId: string): Promise<void> {
    return countLoss(this.#redis, worker, sessionId)
  }

  workflows(): WorkflowInfo[] {
    return [...this.#workflows.values()].map(({ name, version, title, description, input, output, resources, machine }) => {
      return { name, version, title, description, input, output, resources, diagram: toMermaid(machine) }
    })
  }

  /** Ready when Redis answers and no lane with waiting jobs is without a worker that takes them. */
  async ready(): Promise<{ ready: boolean; reasons: string[] }> {
    try {
      await ask(this.#redis.ping())
      const reasons = await this.store.stranded()
      return { ready: reasons.length === 0, reasons }
    } catch (error) {
      return { ready: false, reasons: [ensureError(error, 'redis.unavailable').message] }
    }
  }

  /** Queues for the operator's board: those of the lanes that workers have now. */
  async queues(): Promise<ReturnType<Dispatcher['queue']>[]> {
    const records = await this.workers()
    const names = new Set([
      queues.host,
      ...records.flatMap(({ exactnessKey, device: { id } }) => [queues.gpuClass(exactnessKey), queues.gpuDevice(id), queues.control(id)]),
    ])
    return [...names].map((name) => this.dispatcher.queue(name))
  }

  /** Stops the sweeps and lets go of queues; the connections belong to the caller. */
  async close(): Promise<void> {
    await Promise.all([this.#recovery.stop(), this.retention.stop(), this.devices.watch.stop()])
    await this.dispatcher.close()
  }
}

const reserveOf = (workflow: Workflow, input: Record<string, unknown>): number => stepBytes * (1 + (workflow.steps?.(input) ?? 10))

/** What the session is promised, as fields of its record. */
const promises = (workflow: Workflow, input: Record<string, unknown>): Record<string, string> => ({
  ...(workflow.exact && { exact: '1' }),
  ...(workflow.isStrict?.(input) && { strict: '1' }),
})

const full = (): DarkroomError =>
  redisError('full', 'what Redis holds and its open sessions may still need is more than 80 % of its maxmemory')

const unknown = (id: string): DarkroomError => sessionError('unknown', `there is no session ${id}`, { field: 'id' })

const indexesOf = (workflow: string, tags: string[], keyId: string | null, parent: string | null = null): string[] => [
  `workflow:${workflow}`,
  ...tags.map((tag) => `tag:${tag}`),
  ...(keyId === null ? [] : [`key:${keyId}`]),
  ...(parent === null ? [] : [`parent:${parent}`]),
]

const timerEvent = ({ effects }: Document, suffix: string): Cause['event'] => {
  const timer = Object.values(effects).find((effect) => effect.suffix === suffix)
  return timer && 'event' in timer ? timer.event : undefined
}

/** What a session waits for while no step of it is open, in words; empty while one is. */
function parkedOn({ document }: Transition): string {
  const effects = Object.values(document.effects)
  if (document.status !== undefined || effects.some((effect) => 'step' in effect)) return ''
  const children = effects.flatMap((effect) => ('session' in effect ? [effect.session] : []))
  if (children.length > 0) return `child sessions: ${children.join(', ')}`
  return effects.length > 0 ? 'a timer' : 'a signal'
}

/** How a final state ends the session: XState `done` succeeds, unless the state has the tag `failed`; XState `error` fails. */
function outcomeOf({ document, snapshot }: Transition): Commit['outcome'] {
  if (document.status === undefined) return undefined
  const failed = document.status === 'error' || snapshot.hasTag('failed')
  if (!failed) {
    const output = document.output ?? {}
    return { status: 'succeeded', result: JSON.stringify(output), entry: { type: 'session.succeeded', output } }
  }
  const told = document.status === 'error' ? document.error : (document.output as { error?: unknown } | undefined)?.error
  const error = isWireError(told)
    ? told
    : workflowError('broken', `the workflow failed without saying why: ${JSON.stringify(told)}`).toWire()
  return failure(error)
}

const failure = (error: WireError): NonNullable<Commit['outcome']> => ({
  status: 'failed',
  result: JSON.stringify(error),
  entry: { type: 'session.failed', error },
})

const isWireError = (value: unknown): value is WireError =>
  typeof value === 'object' && value !== null && 'code' in value && 'message' in value

function invalid(error: z.ZodError): DarkroomError {
  const problems = error.issues.flatMap((issue) => {
    const at = (path: PropertyKey[]): string => ['input', ...path].map(String).join('.')
    if (issue.code === 'unrecognized_keys')
      return issue.keys.map((key) => ({ field: at([...issue.path, key]), message: 'there is no such field' }))
    return [{ field: at(issue.path), message: issue.message }]
  })
  const [first] = problems
  return apiError('invalid', problems.map(({ field, message }) => `${field}: ${message}`).join('; '), {
    field: first?.field ?? 'input',
    details: { problems },
  })
}
