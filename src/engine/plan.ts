/**
 * What a transition asks for, as a commit writes it: steps with their lane and priority, child sessions with their ids.
 * Pure.
 */
import type { OperationTable } from '../domains/operation.ts'
import { workflowError } from '../errors.ts'
import { childSessionId } from '../keys.ts'
import type { OpenedItems, OpenedSession, OpenedStep, OpenedTimer, OpenEffect, Transition } from './transition.ts'

/** A step as its session asked for it, with the lane and priority its dispatch needs. */
export interface PlannedStep extends OpenedStep {
  lane: string
  priority: number
}

/** A child session with the id it has from the commit that asked for it. */
export interface PlannedSession extends OpenedSession {
  child: string
}

export interface Effects {
  closed: { suffix: string; child: string }[]
  steps: PlannedStep[]
  sessions: PlannedSession[]
  items: OpenedItems[]
  timers: OpenedTimer[]
  /** What the session waits for when no step of it is open; empty otherwise. */
  parked: string
}

export const noEffects: Effects = { closed: [], steps: [], sessions: [], items: [], timers: [], parked: '' }

/** What an open child's effect holds, and the outbox behind `child:<step key>:`. */
export const childValue = ({ child, workflow }: { child: string; workflow: string }): string => `${child}:${workflow}`

/** Likewise of the effect that works off a session's items. */
export const itemsValue = 'items'

/** Priority of a session's first steps when it has the highest. */
export const mostUrgent = 10

/** Of a session's first steps, by its own priority: behind those that continue one. */
export const firstPriority = (priority: number): number => mostUrgent + (9 - priority)

/** Places that a level of priority has in a queue of BullMQ, which knows two millions. */
const ofLevel = 100_000

/**
 * Place of the job of one that was let in as the n-th, by its level: two processes that let in one after the other may
 * add their jobs in any order.
 */
export const placeInQueue = (level: number, n: number): number => mostUrgent + (9 - level) * ofLevel + (n % ofLevel)

export interface PlanOptions {
  operations: OperationTable
  shards: number
  /** Of the steps; 0 continues a session. */
  priority: number
}

/**
 * Puts the ids of child sessions into the transition's document too. @throws DarkroomError `workflow.broken` for a step
 * that is no operation
 */
export function plan(id: string, transition: Transition, { operations, shards, priority }: PlanOptions): Effects {
  const steps = transition.steps.map((step): PlannedStep => {
    const operation = operations[step.step]
    if (!operation) throw workflowError('broken', `there is no operation ${step.step}`)
    return { ...step, lane: operation.lane, priority }
  })
  const { effects } = transition.document
  const sessions = transition.sessions.map((opened): PlannedSession => {
    const child = childSessionId(shards, `${id}.${opened.suffix}`)
    const effect = effects[`session/${opened.invoke}`]
    // Kept beside what was asked for: the number of shards may grow, the child stays where it is.
    if (effect && 'session' in effect) effect.child = child
    return { ...opened, child }
  })
  const closed = transition.closed.map((effect) => ({
    suffix: effect.suffix,
    child: valueOf(effect),
  }))
  return { closed, steps, sessions, items: transition.items, timers: transition.timers, parked: parkedOn(transition) }
}

/** What an effect holds that is followed as a child; empty for steps and timers. */
function valueOf(effect: OpenEffect): string {
  if ('items' in effect) return itemsValue
  return 'session' in effect && effect.child !== undefined ? childValue({ child: effect.child, workflow: effect.session }) : ''
}

/** What a session waits for while no step of it is open, in words; empty while one is. A final state has begun, too. */
function parkedOn({ document }: Transition): string {
  const effects = Object.values(document.effects)
  if (document.status !== undefined) return 'its end'
  if (effects.some((effect) => 'step' in effect)) return ''
  const children = effects.flatMap((effect) => ('session' in effect ? [effect.session] : []))
  if (children.length > 0) return `child sessions: ${children.join(', ')}`
  if (effects.some((effect) => 'items' in effect)) return 'its items'
  return effects.length > 0 ? 'a timer' : 'a signal'
}
