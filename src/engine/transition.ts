/**
 * The pure core: (machine, document, event) → the next document and the effects it asks for. No clock, no chance, no
 * I/O.
 *
 * XState's own way (`createActor(machine, { snapshot }).getSnapshot()`, `transition`, `getPersistedSnapshot`) builds a
 * machine actor at every call. Here one inert scope serves a machine for ever and every child is a stand-in; a property
 * test proves states, contexts, children, histories, outputs and effects equal to XState's own. Actors are never
 * started.
 */
import {
  initialTransition,
  type AnyActorLogic,
  type AnyActorScope,
  type AnyEventObject,
  type AnyMachineSnapshot,
  type AnyStateMachine,
} from 'xstate'
import { workflowError } from '../errors.ts'
import { isSession } from '../workflows/child-session.ts'
import { isItems } from '../workflows/items.ts'

/**
 * What is persisted of a machine between two events. `effects` are the open children (`step/<id>`, `session/<id>`,
 * `items/<id>`) and timers (`timer/<id>`): the suffix of their key, and what a child was asked to do or a timer will
 * send.
 */
export interface Document {
  value: unknown
  context: unknown
  status?: 'done' | 'error'
  output?: unknown
  error?: unknown
  history?: Record<string, { id: string }[]>
  effects: Record<string, OpenEffect>
  /** Steps that undo what was done so far, in the order of what they undo. */
  undo?: { step: string; input: unknown }[]
}

export type OpenEffect =
  | { suffix: string; step: string; input: unknown }
  | { suffix: string; session: string; input: unknown; child?: string }
  | { suffix: string; items: string }
  | { suffix: string; event: AnyEventObject; delayMs: number }

export interface OpenedStep {
  suffix: string
  step: string
  invoke: string
  input: unknown
}

/** A child session: `workflow` is `name@version`. */
export interface OpenedSession {
  suffix: string
  workflow: string
  invoke: string
  input: unknown
}

/** Works off the items of the session. */
export interface OpenedItems {
  suffix: string
  items: string
}

export interface OpenedTimer {
  suffix: string
  delayMs: number
}

export interface Transition {
  document: Document
  snapshot: AnyMachineSnapshot
  /** Effects that were open before and are not any more, the completed one included. */
  closed: OpenEffect[]
  steps: OpenedStep[]
  sessions: OpenedSession[]
  items: OpenedItems[]
  timers: OpenedTimer[]
}

type Kind = 'step' | 'session' | 'items'

interface Action {
  type: string
  params: unknown
}

/** A state of a machine in memory: the document and XState's own object for it. */
export interface Loaded {
  document: Document
  snapshot: AnyMachineSnapshot
}

/** Tells the machine of an effect's end: `output` of a step or an `error`, as XState names these events. */
export const doneEvent = (invoke: string, output: unknown): AnyEventObject => ({
  type: `xstate.done.actor.${invoke}`,
  output,
  actorId: invoke,
})
export const errorEvent = (invoke: string, error: unknown): AnyEventObject => ({
  type: `xstate.error.actor.${invoke}`,
  error,
  actorId: invoke,
})

/** A machine made ready for pure transitions. */
export class PureMachine {
  readonly #machine: AnyStateMachine
  /** Actor sources by kind. */
  readonly #sources: ReadonlyMap<string, Kind>
  readonly #scope: AnyActorScope
  #actions: Action[] = []

  constructor(machine: AnyStateMachine) {
    const sources = Object.entries(machine.implementations.actors as Record<string, unknown>)
    this.#sources = new Map(sources.map(([source, logic]) => [source, kindOf(logic)]))
    this.#machine = machine.provide({ actors: Object.fromEntries(sources.map(([source]) => [source, standIn])) })
    this.#machine.options = { ...this.#machine.options, maxIterations: maxMicrosteps }
    this.#scope = inertScope()
    this.#scope.actionExecutor = (action) => void this.#actions.push(action as Action)
  }

  /** The first state. Effects get suffixes `<version>.<n>`. @throws whatever the machine's own functions throw */
  start(input: unknown, version: number): Transition {
    this.#actions = []
    const snapshot = this.#machine.getInitialSnapshot(this.#scope, input as never) as AnyMachineSnapshot
    if (snapshot.status === 'error') throw snapshot.error
    return this.#plan(snapshot, {}, [], version)
  }

  /** @throws DarkroomError `workflow.broken` when the document names a step this machine no longer has */
  load(document: Document): Loaded {
    const children: Record<string, unknown> = {}
    for (const [name, effect] of Object.entries(document.effects)) {
      const [kind, src] = sourceOf(effect)
      if (src === undefined) continue
      // XState drops a child whose source was renamed without a word.
      if (this.#sources.get(src) !== kind) throw workflowError('broken', `the machine has no ${kind} ${src} any more`)
      children[idOf(name)] = { src, snapshot: active }
    }
    const persisted = { ...document, status: document.status ?? 'active', historyValue: document.history, children }
    return { document, snapshot: this.#machine.restoreSnapshot(persisted as never, this.#scope) as AnyMachineSnapshot }
  }

  /** The state after `event`, which ends the effect `completed` (its suffix) when it is one's result. */
  next(from: Loaded, event: AnyEventObject, completed: string | undefined, version: number): Transition {
    this.#actions = []
    const snapshot = this.#machine.transition(from.snapshot, event, this.#scope) as AnyMachineSnapshot
    const effects = { ...from.document.effects }
    const closed: OpenEffect[] = []
    for (const [name, effect] of Object.entries(effects)) {
      if (effect.suffix !== completed) continue
      closed.push(effect)
      delete effects[name]
    }
    const next = this.#plan(snapshot, effects, closed, version)
    if (from.document.undo) next.document.undo = from.document.undo
    return next
  }

  /** Whether the machine does something about an event of this type in this state. */
  takes(document: Document, type: string): boolean {
    return this.load(document).snapshot.can({ type } as never)
  }

  /** Signals that some state of the machine takes, without their `signal.`; `*` stands for any. */
  get signals(): string[] {
    const taken = (this.#machine.events as string[]).filter((event) => event.startsWith('signal.'))
    return taken.map((event) => event.slice('signal.'.length)).toSorted()
  }

  /**
   * The same state with every open effect under a new suffix, a timer with its whole delay: what a retry of an ended
   * session begins with.
   */
  restart(document: Document, version: number): Transition {
    const effects: Record<string, OpenEffect> = {}
    const [steps, sessions, items, timers]: [OpenedStep[], OpenedSession[], OpenedItems[], OpenedTimer[]] = [[], [], [], []]
    for (const [i, [name, effect]] of Object.entries(document.effects).entries()) {
      const suffix = `${version}.${i}`
      const invoke = idOf(name)
      effects[name] = { ...effect, suffix }
      if ('step' in effect) steps.push({ suffix, step: effect.step, invoke, input: effect.input })
      else if ('session' in effect) sessions.push({ suffix, workflow: effect.session, invoke, input: effect.input })
      else if ('items' in effect) items.push({ suffix, items: effect.items })
      else timers.push({ suffix, delayMs: effect.delayMs })
    }
    const restarted = { ...document, effects }
    return { ...this.load(restarted), closed: [], steps, sessions, items, timers }
  }

  #plan(snapshot: AnyMachineSnapshot, effects: Record<string, OpenEffect>, closed: OpenEffect[], version: number): Transition {
    const opening = new Opening(effects, closed)
    let n = 0
    for (const { type, params } of this.#actions) {
      if (type === 'xstate.spawnChild') {
        // Of a computed id only the reference knows the value.
        const { actorRef, src, input } = params as { actorRef: { id: string }; src: string; input: unknown }
        const { id } = actorRef
        const suffix = `${version}.${n++}`
        const kind = this.#sources.get(src)
        if (kind === 'items') opening.open(`items/${id}`, { suffix, items: src }, { suffix, items: src })
        else if (kind === 'session')
          opening.open(`session/${id}`, { suffix, session: src, input }, { suffix, workflow: src, invoke: id, input })
        else opening.open(`step/${id}`, { suffix, step: src, input }, { suffix, step: src, invoke: id, input })
      } else if (type === 'xstate.stopChild') {
        const stopped = params as { id?: string } | string | undefined
        const id = typeof stopped === 'string' ? stopped : stopped?.id
        opening.drop(`step/${id}`)
        opening.drop(`session/${id}`)
        opening.drop(`items/${id}`)
      } else if (type === 'xstate.raise') {
        const { event, id, delay } = params as { event: AnyEventObject; id?: string; delay?: number }
        if (delay === undefined) continue // raised without a delay: XState has already applied it
        if (id === undefined) throw workflowError('broken', `the delayed event ${event.type} needs an id, or nothing could stop it`)
        const suffix = `${version}.${n++}`
        const delayMs = Math.max(0, Math.round(delay))
        opening.open(`timer/${id}`, { suffix, event, delayMs }, { suffix, delayMs })
      } else if (type === 'xstate.cancel') {
        opening.drop(`timer/${(params as { sendId: string }).sendId}`)
      } else if (type !== 'xstate.emit' && type !== 'xstate.log') {
        throw workflowError('broken', `the action ${type} cannot run durably; make it a step`)
      }
    }
    if (snapshot.status !== 'active') {
      for (const name of Object.keys(effects)) opening.drop(name)
    }
    const records = opening.records
    return {
      document: this.#dump(snapshot, effects),
      snapshot,
      closed,
      steps: records.filter((record): record is OpenedStep => 'step' in record),
      sessions: records.filter((record): record is OpenedSession => 'workflow' in record),
      items: records.filter((record): record is OpenedItems => 'items' in record),
      timers: records.filter((record): record is OpenedTimer => 'delayMs' in record),
    }
  }

  #dump(snapshot: AnyMachineSnapshot, effects: Record<string, OpenEffect>): Document {
    const document: Document = { value: snapshot.value, context: snapshot.context, effects }
    if (snapshot.status !== 'active') {
      document.status = snapshot.status === 'error' ? 'error' : 'done'
      if (snapshot.output !== undefined) document.output = snapshot.output
      if (snapshot.error !== undefined) document.error = snapshot.error
    }
    const history = snapshot.historyValue as Record<string, { id: string }[]>
    for (const id of Object.keys(history)) (document.history ??= {})[id] = (history[id] ?? []).map((node) => ({ id: node.id }))
    return document
  }
}

type Opened = OpenedStep | OpenedSession | OpenedItems | OpenedTimer

const kindOf = (logic: unknown): Kind => (isSession(logic) ? 'session' : isItems(logic) ? 'items' : 'step')

/** What an open child is, and its actor source; nothing for a timer. */
function sourceOf(effect: OpenEffect): [Kind, string] | [] {
  if ('step' in effect) return ['step', effect.step]
  if ('session' in effect) return ['session', effect.session]
  return 'items' in effect ? ['items', effect.items] : []
}

/** The id that a child has in its machine. */
export const idOf = (effect: string): string => effect.slice(effect.indexOf('/') + 1)

const active = { status: 'active' }

/** Most states that one event may lead through; a circle of `always` would never end. */
const maxMicrosteps = 1000

/** Children are steps that run elsewhere: a stand-in computes nothing. */
const standIn = {
  getInitialSnapshot: (_scope: unknown, input: unknown) => ({ status: 'active', output: undefined, error: undefined, input }),
  transition: (snapshot: unknown) => snapshot,
  getPersistedSnapshot: (snapshot: unknown) => snapshot,
  restoreSnapshot: (snapshot: unknown) => snapshot,
} as unknown as AnyActorLogic

/** XState hands every logic a scope; a probe logic gets us an inert one through the public `initialTransition`. */
function inertScope(): AnyActorScope {
  let scope: AnyActorScope | undefined
  const probe = {
    ...standIn,
    getInitialSnapshot: (given: AnyActorScope) => {
      scope = given
      return active
    },
  } as unknown as AnyActorLogic
  initialTransition(probe)
  if (!scope) throw new Error('XState gave the probe no scope')
  return scope
}

/** What one transition opens and closes: an effect that it both opened and closed leaves no trace. */
class Opening {
  readonly #effects: Record<string, OpenEffect>
  readonly #closed: OpenEffect[]
  readonly #opened = new Map<string, Opened>()

  constructor(effects: Record<string, OpenEffect>, closed: OpenEffect[]) {
    this.#effects = effects
    this.#closed = closed
  }

  get records(): Opened[] {
    return [...this.#opened.values()]
  }

  open(name: string, effect: OpenEffect, record: Opened): void {
    this.drop(name)
    this.#effects[name] = effect
    this.#opened.set(name, record)
  }

  drop(name: string): void {
    const effect = this.#effects[name]
    if (!effect) return
    if (!this.#opened.delete(name)) this.#closed.push(effect)
    delete this.#effects[name]
  }
}
