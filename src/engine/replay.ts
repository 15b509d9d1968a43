/**
 * The states that a session has been in, computed again from its first one and its history. Nothing is kept of them but
 * the history: a machine computes the same each time. Pure.
 */
import { isDeepStrictEqual } from 'node:util'
import type { AnyEventObject } from 'xstate'
import type { SessionEvent } from './session.ts'
import { splitStepKey } from '../keys.ts'
import { doneEvent, errorEvent, idOf, type Document, type Loaded, type OpenEffect, type PureMachine } from './transition.ts'

/** A history entry with its number. */
export interface Entry {
  id: number
  event: SessionEvent
}

/** A state, and the history entry that led to it. */
export interface RecordedState {
  entry: number
  at: number
  document: Document
}

/** What a history entry told the machine; `effect` is the one that ended with it. */
interface Told {
  event: AnyEventObject
  effect: string | undefined
}

/** Undefined of an entry that told the machine nothing, and of one that says too little of it. */
function toldBy({ type, key = '', ...more }: SessionEvent, { effects }: Document): Told | undefined {
  if (type === 'signal.received') {
    const { signal, data } = more as { signal?: unknown; data?: unknown }
    return { event: { type: `signal.${String(signal)}`, ...(data !== undefined && { data }) }, effect: undefined }
  }
  if (type === 'session.moved') return { event: { type: 'class.lost' }, effect: undefined }
  const { suffix } = splitStepKey(key)
  const [effect, open] = Object.entries(effects).find(([, each]) => each.suffix === suffix) ?? []
  if (effect === undefined || open === undefined) return undefined
  const invoke = idOf(effect)
  if (type === 'step.completed') return { event: doneEvent(invoke, more['output']), effect }
  if (type === 'step.failed') return { event: errorEvent(invoke, more['error']), effect }
  if (type === 'timer.fired' && 'event' in open) return { event: open.event, effect }
  if (type !== 'child.ended') return undefined
  return { event: more['status'] === 'succeeded' ? doneEvent(invoke, more['output']) : errorEvent(invoke, more['error']), effect }
}

/** As a process reads it that was not there when it was written. */
const stored = (document: Document): Document => JSON.parse(JSON.stringify(document)) as Document

function apply(machine: PureMachine, from: Loaded, { event, effect }: Told, version: number): Loaded {
  const completed = effect === undefined ? undefined : from.document.effects[effect]?.suffix
  return machine.load(stored(machine.next(from, event, completed, version).document))
}

/**
 * Every state up to the last entry. A final state is the last one. What the machine throws ends them too: it has ended
 * the session then.
 * @param first the state that the session began with
 */
export function* statesOf(machine: PureMachine, first: Document, history: readonly Entry[]): Generator<RecordedState> {
  let at = machine.load(stored(first))
  let version = 1
  for (const { id, event } of history) {
    if (event.type === 'session.created') yield { entry: id, at: event.at, document: at.document }
    const told = toldBy(event, at.document)
    if (!told) continue
    try {
      at = apply(machine, at, told, ++version)
    } catch {
      return
    }
    yield { entry: id, at: event.at, document: at.document }
    if (at.document.status !== undefined) return
  }
}

/** Where a session that began otherwise parts from another. */
export interface Parting {
  /** The last entry of the other's history that is true of both. */
  entry: number
  /** Of the one that began otherwise, there. */
  document: Document
  /** The first step or child session that it runs itself: one asked for something else, else one that is open. */
  step: string | null
  /** Names of steps whose results it takes over. */
  taken: string[]
}

/**
 * Goes along a history with another beginning as well, as long as every step that has ended was asked for the same.
 * @param other the state that the other one begins with: the same for the same input
 */
export function partingOf(machine: PureMachine, first: Document, other: Document, history: readonly Entry[]): Parting {
  let [old, at] = [machine.load(stored(first)), machine.load(stored(other))]
  let version = 1
  let entry = history[0]?.id ?? 1
  const taken: string[] = []
  for (const { id, event } of history) {
    const told = toldBy(event, old.document)
    if (!told) continue
    const { effect } = told
    const [asked, again] = effect === undefined ? [] : [old.document.effects[effect], at.document.effects[effect]]
    if (effect !== undefined && !isSame(asked, again)) break
    version++
    at = apply(machine, at, told, version)
    old = apply(machine, old, told, version)
    if (asked && 'step' in asked) taken.push(asked.step)
    entry = id
  }
  const open = Object.entries(at.document.effects).filter(([, effect]) => !('event' in effect))
  const [, changed] = open.find(([name, effect]) => !isSame(old.document.effects[name], effect)) ?? open[0] ?? []
  return { entry, document: at.document, step: changed ? nameOf(changed) : null, taken }
}

/** Whether two effects ask for the same. */
function isSame(one: OpenEffect | undefined, other: OpenEffect | undefined): boolean {
  if (!one || !other) return false
  const asks = (effect: OpenEffect): object => ({ ...effect, suffix: undefined, child: undefined })
  return isDeepStrictEqual(asks(one), asks(other))
}

const nameOf = (effect: OpenEffect): string => ('step' in effect ? effect.step : 'session' in effect ? effect.session : '')

/** Whether two states are the same but for the ids of child sessions, and for what is to be undone. */
export function isSameState(one: Document, other: Document): boolean {
  const plain = (document: Document): object => ({
    ...document,
    undo: undefined,
    effects: Object.fromEntries(Object.entries(document.effects).map(([name, effect]) => [name, { ...effect, child: undefined }])),
  })
  return isDeepStrictEqual(stored(plain(one) as Document), stored(plain(other) as Document))
}
