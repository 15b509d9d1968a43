/**
 * What happened to a session, applied: transition and one commit, computed again when another event came first. No live
 * actor in between.
 */
import { DarkroomError, workflowError } from '../errors.ts'
import { splitStepKey } from '../keys.ts'
import type { Logger } from '../log.ts'
import { failure, outcomeOf } from './outcome.ts'
import { noEffects, plan, type Effects, type PlannedStep } from './plan.ts'
import type { AtPoint } from './points.ts'
import type { Reads, State, StepRecord } from './reads.ts'
import type { OwnWorkflows } from './own-workflows.ts'
import type { Registry } from './registry.ts'
import type { Cause, Commit, Lease, Store } from './store.ts'
import { undoneBy } from './undone.ts'
import { errorEvent, type Document, type Loaded, type PureMachine, type Transition } from './transition.ts'

/** What a commit has put into the outbox. */
export interface Committed {
  id: string
  effects: Pick<Effects, 'steps' | 'sessions' | 'items'>
  /** It has ended, and its parent is to be told. */
  tellsParent: boolean
  /** Of a session that has just come to be: the one device that its steps run on; null: any. */
  device?: string | null
}

/** The session's next step, and where its session stands then. */
export interface Next {
  step: PlannedStep
  state: State
  context: unknown
}

export interface Applied {
  is: 'ok' | 'stale' | 'parked' | 'ended'
  /** Leased to the attempt that asked for it. */
  next?: Next
}

/** What whoever brings a step's result would go on with. */
export interface Chain {
  /** The lease of a step that it goes on with; undefined for another. */
  leaseOf(step: PlannedStep): Lease | undefined
  /** Told what comes next, before the commit is sent. Whether that has begun. */
  begin(next: Next): boolean
  /** Awaited before the commit is sent; when it rejects none is. */
  stored(): Promise<void> | undefined
}

/** Documents that are remembered. */
const maxRemembered = 10_000

export interface CommitsParts {
  store: Store
  reads: Reads
  registry: Registry
  ownWorkflows: OwnWorkflows
  shards: number
  log: Logger
  at: AtPoint | undefined
  /** Called after each commit that put something into the outbox; never throws, for the outbox has it already. */
  afterCommit: (committed: Committed) => Promise<void>
}

export class Commits {
  readonly #parts: CommitsParts
  /** What a document's text parses to: a memo, so it cannot be stale. An entry is out while it is in use. */
  readonly #remembered = new Map<string, { text: string; loaded: Loaded }>()

  constructor(parts: CommitsParts) {
    this.#parts = parts
  }

  /**
   * Applies a step's result, a timer, a child's end or an event. `state` spares the read when the caller has just seen
   * it; `head` is the text of the cause where it was read from the inbox.
   */
  async apply(id: string, cause: Cause, state?: State, head = ''): Promise<Applied['is']> {
    return (await this.#apply(id, cause, state, head, undefined)).is
  }

  /** Applies a step's result, and leases the session's next step in the same commit, if `chain` goes on with it. */
  applyAndChain(id: string, cause: Cause, state: State, chain: Chain | undefined): Promise<Applied> {
    return this.#apply(id, cause, state, '', chain)
  }

  /** No attempt will run this step any more: its machine is told. */
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

  /**
   * Applies what waited in the inbox, in order, until it is empty or the session rests again. False in a process
   * without its machine, which leaves it to others.
   */
  async drainInbox(id: string): Promise<boolean> {
    const { reads, registry, ownWorkflows, at } = this.#parts
    const { workflow } = await reads.fields(id, 'workflow')
    if (workflow !== null && !((await ownWorkflows.agrees(workflow)) && registry.machine(workflow))) return false
    for (;;) {
      const head = await reads.inboxHead(id)
      if (head === null) return true
      at?.('inbox.before', id)
      const is = await this.apply(id, JSON.parse(head) as Cause, undefined, head)
      if (is === 'parked' || is === 'ended') return true
    }
  }

  /** A session's document, also of a workflow that this process does not have. */
  document(id: string, { snapshot, workflow }: State): Document {
    const known = this.#remembered.get(id)
    if (known?.text === snapshot) return known.loaded.document
    const document = JSON.parse(snapshot) as Document
    const machine = this.#parts.registry.machine(workflow)
    // What follows is its transition, most often here.
    if (machine) this.#remember(id, snapshot, machine.load(document))
    return document
  }

  /** A session that was deleted needs no memory. */
  forget(id: string): void {
    this.#remembered.delete(id)
  }

  async #apply(id: string, cause: Cause, state: State | undefined, pending: string, chain: Chain | undefined): Promise<Applied> {
    const { store, reads, ownWorkflows, afterCommit } = this.#parts
    let at = state ?? (await reads.state(id))
    // Of one that this process has in another content, it computes nothing: the event waits for a process that may.
    if (at) await ownWorkflows.agrees(at.workflow)
    while (at) {
      const { commit, transition, next: step } = this.#commitFor(id, cause, at, pending, chain)
      const next = step && transition && { step, state: after(at, commit.snapshot), context: contextOf(transition) }
      const hasBegun = next && chain?.begin(next)
      await chain?.stored()
      const reply = await store.commit(commit)
      if (reply.is === 'conflict') {
        at = { ...at, version: reply.version, snapshot: reply.snapshot }
        // What has begun may not come any more.
        if (hasBegun) chain = undefined
        continue
      }
      if (reply.is !== 'ok') return { is: reply.is === 'inbox' ? 'parked' : reply.is === 'ended' ? 'ended' : 'stale' }
      if (!transition) return { is: 'ok' }
      const { snapshot, effects } = commit
      const taken = reply.taken ? next : undefined
      if (transition.document.status === undefined) this.#remember(id, snapshot, transition)
      const steps = taken ? effects.steps.filter((each) => each !== taken.step) : effects.steps
      // Awaited, so that the next step is in its queue before the worker that brought this result looks for more.
      await afterCommit({ id, effects: { ...effects, steps }, tellsParent: reply.parent })
      return { is: 'ok', ...(taken && { next: taken }) }
    }
    return { is: 'stale' }
  }

  #commitFor(
    id: string,
    cause: Cause,
    at: State,
    pending: string,
    chain: Chain | undefined,
  ): { commit: Commit; transition?: Transition; next?: PlannedStep | undefined } {
    const { registry, shards, log } = this.#parts
    const machine = registry.machine(at.workflow)
    const mode: Commit['mode'] = pending ? 'inbox' : 'direct'
    const base = { id, version: at.version, cause, pending, mode, next: undefined }
    if (!machine) return { commit: { ...base, mode: 'park', snapshot: '', outcome: undefined, effects: noEffects } }
    let before = at.snapshot
    try {
      const loaded = this.#withUndo(at.workflow, this.#load(id, machine, at.snapshot), cause)
      // What was done is undone, also when the machine throws at it.
      if (loaded.document.undo) before = JSON.stringify(loaded.document)
      const event = cause.event ?? timerEvent(loaded.document, cause.name)
      // The effect is not open any more: the script finds the same and changes nothing.
      const transition = event && machine.next(loaded, event, cause.kind === 'event' ? undefined : cause.name, Number(at.version) + 1)
      const document = transition?.document ?? loaded.document
      const effects = transition ? plan(id, transition, { operations: registry.operations, shards, priority: 0 }) : noEffects
      const outcome = transition && outcomeOf(transition)
      const [next] = outcome
        ? []
        : effects.steps.flatMap((step) => {
            const lease = chain?.leaseOf(step)
            return lease ? [{ step, lease }] : []
          })
      const snapshot = JSON.stringify(document)
      checkSize(at.workflow, snapshot)
      const commit: Commit = {
        ...base,
        snapshot,
        outcome,
        effects,
        next: next && { ...next.lease, suffix: next.step.suffix },
      }
      return transition ? { commit, transition, next: next?.step } : { commit }
    } catch (error) {
      log.error({ session: id, workflow: at.workflow, err: error }, 'the workflow threw')
      const broken =
        error instanceof DarkroomError
          ? error
          : workflowError('broken', `${at.workflow} threw: ${(error as Error).message}`, { cause: error })
      // A commit like any other, so that only what may change the session may break it.
      return { commit: { ...base, snapshot: before, outcome: failure(broken.toWire()), effects: noEffects } }
    }
  }

  /** The state, with what undoes the step that has just ended. */
  #withUndo(workflow: string, { document, snapshot }: Loaded, cause: Cause): Loaded {
    const undone = undoneBy(this.#parts.registry, workflow, document, cause)
    return { document: undone.length === 0 ? document : { ...document, undo: [...(document.undo ?? []), ...undone] }, snapshot }
  }

  #load(id: string, machine: PureMachine, text: string): Loaded {
    const known = this.#remembered.get(id)
    this.#remembered.delete(id)
    return known?.text === text ? known.loaded : machine.load(JSON.parse(text) as Document)
  }

  #remember(id: string, text: string, loaded: Loaded): void {
    this.#remembered.set(id, { text, loaded })
    if (this.#remembered.size > maxRemembered) this.#remembered.delete(this.#remembered.keys().next().value ?? '')
  }
}

/** Characters that a session's state may have: each commit writes it whole. */
const maxState = 4 * 2 ** 20

/** @throws DarkroomError `workflow.too_large` */
export function checkSize(workflow: string, snapshot: string): void {
  if (snapshot.length > maxState)
    throw workflowError('too_large', `a state of ${workflow} would have ${snapshot.length} characters; ${maxState} are the most`)
}

/** Where a session stands that had this state, after one more transition. */
const after = (state: State, snapshot: string): State => ({ ...state, version: String(Number(state.version) + 1), snapshot })

const contextOf = ({ snapshot }: Transition): unknown => (snapshot as { context: unknown }).context

const timerEvent = ({ effects }: Document, suffix: string): Cause['event'] => {
  const timer = Object.values(effects).find((effect) => effect.suffix === suffix)
  return timer && 'event' in timer ? timer.event : undefined
}
