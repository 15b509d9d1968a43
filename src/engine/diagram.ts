import type { AnyStateMachine, AnyStateNode } from 'xstate'

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
    for (const transition of [...node.transitions.values()].flat().concat(node.always ?? [])) {
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
  return eventType.replaceAll(':', ' ')
}
