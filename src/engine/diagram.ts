import type { AnyStateMachine, AnyStateNode } from 'xstate'
import { nameOf } from '../workflows/define.ts'

/** A state of a machine, with those inside it. */
export interface GraphState {
  /** Unique in the machine. */
  id: string
  name: string
  type: 'atomic' | 'compound' | 'parallel' | 'final' | 'history'
  /** A session that ends here has failed. */
  isFailure: boolean
  /** Steps and child sessions that run while it is entered. */
  steps: string[]
  /** Where it begins; null of one without states inside. */
  initial: string | null
  states: GraphState[]
}

export interface GraphTransition {
  from: string
  to: string
  /** What it waits for, in words: `done`, `error`, `after`, `always` or the name of an event. */
  on: string
  /** Name of its condition; null without one, or without a name. */
  guard: string | null
}

/** A machine to be drawn. */
export interface Graph {
  root: GraphState
  transitions: GraphTransition[]
}

export function graphOf(machine: AnyStateMachine): Graph {
  const transitions: GraphTransition[] = []
  const visit = (node: AnyStateNode): GraphState => {
    for (const transition of transitionsOf(node)) {
      const { guard } = transition as { guard?: unknown }
      const named = typeof guard === 'string' ? guard : (guard as { type?: unknown } | undefined)?.type
      for (const target of transition.target ?? [])
        transitions.push({
          from: node.id,
          to: target.id,
          on: label(transition.eventType),
          guard: typeof named === 'string' ? named : null,
        })
    }
    return {
      id: node.id,
      name: node.key,
      type: node.type,
      isFailure: node.tags.includes('failed'),
      steps: node.invoke.map(({ src }) => nameOf(src)),
      initial: node.initial?.target?.[0]?.id ?? null,
      states: Object.values(node.states).map(visit),
    }
  }
  return { root: visit(machine.root), transitions }
}

const transitionsOf = (node: AnyStateNode) => [...node.transitions.values()].flat().concat(node.always ?? [])

/** A machine as a Mermaid state diagram: one line a transition, the steps a state invokes as its note. */
export function toMermaid(machine: AnyStateMachine): string {
  const lines = ['stateDiagram-v2']
  const name = (node: AnyStateNode): string => node.path.join('_') || node.key.replaceAll('-', '_')
  const draw = (node: AnyStateNode, indent: string): void => {
    const inside = `${indent}  `
    const children = Object.values(node.states)
    const isRoot = node.path.length === 0
    if (children.length > 0 && !isRoot) lines.push(`${indent}state ${name(node)} {`)
    const [first] = node.initial?.target ?? []
    if (first) lines.push(`${inside}[*] --> ${name(first)}`)
    for (const child of children) draw(child, isRoot ? indent : inside)
    if (children.length > 0 && !isRoot) lines.push(`${indent}}`)
    for (const invoke of node.invoke) lines.push(`${inside}${name(node)}: ${invoke.src as string}`)
    if (node.type === 'final') lines.push(`${inside}${name(node)} --> [*]`)
    for (const transition of transitionsOf(node)) {
      for (const target of transition.target ?? []) lines.push(`${inside}${name(node)} --> ${name(target)}: ${label(transition.eventType)}`)
    }
  }
  draw(machine.root, '')
  return lines.join('\n')
}

const label = (eventType: string): string => {
  if (eventType === '') return 'always'
  if (eventType.startsWith('xstate.done.actor.')) return 'done'
  if (eventType.startsWith('xstate.error.actor.')) return 'error'
  const [, delay] = /^xstate\.after\.([^.]+)/.exec(eventType) ?? []
  if (delay !== undefined) return /^\d+$/.test(delay) ? `after ${Number(delay) / 1000} s` : `after ${delay}`
  return eventType.replaceAll(':', ' ')
}
