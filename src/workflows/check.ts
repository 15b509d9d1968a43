/** What is wrong with workflows can be known before the first session: names that do not exist. */
import { closest, distance } from 'fastest-levenshtein'
import type { AnyStateNode } from 'xstate'
import type { OperationTable } from '../domains/operation.ts'
import { workflowError } from '../errors.ts'
import { isSession } from './child-session.ts'
import { nameOf, workflowId, type Workflow } from './define.ts'
import { isItems } from './items.ts'

/**
 * Compares the actors of every machine with the operations and workflows there are.
 * @throws DarkroomError `workflow.broken` with every unknown name, and the known one that is nearest to it
 */
export function checkWorkflows(workflows: readonly Workflow[], operations: OperationTable): void {
  const ids = workflows.map(workflowId)
  const twice = ids.filter((id, i) => ids.indexOf(id) !== i).map((id) => `there are two workflows ${id}`)
  const problems = [...twice, ...workflows.flatMap((workflow) => faultsOf(workflow, ids, operations))]
  if (problems.length > 0) throw workflowError('broken', problems.join('; '))
}

/** Every name in a workflow that is none of the known workflows (`name@version`), operations or its actors. */
export function faultsOf(workflow: Workflow, ids: readonly string[], operations: OperationTable): string[] {
  const actors = workflow.machine.implementations.actors as Record<string, unknown>
  const unknown = Object.entries(actors).flatMap(([name, logic]) => {
    if (isItems(logic)) return []
    const [kind, known] = isSession(logic) ? ['workflow', ids] : ['operation', Object.keys(operations)]
    return known.includes(name) ? [] : [`${workflowId(workflow)} names ${kind} ${name}, which does not exist${suggestion(name, known)}`]
  })
  const undone = Object.keys(workflow.undo).filter((name) => !Object.hasOwn(actors, name))
  const undeclared = invokedBy(workflow.machine.root).filter((name) => !Object.hasOwn(actors, name))
  return [
    ...unknown,
    ...undone.map(
      (name) =>
        `${workflowId(workflow)} says what undoes ${name}, which its setup has not among its actors${suggestion(name, Object.keys(actors))}`,
    ),
    ...undeclared.map(
      (name) => `${workflowId(workflow)} invokes ${name}, which its setup has not among its actors${suggestion(name, Object.keys(actors))}`,
    ),
  ]
}

const invokedBy = (node: AnyStateNode): string[] => [
  ...node.invoke.map(({ src }) => nameOf(src)),
  ...Object.values(node.states).flatMap(invokedBy),
]

/** `; did you mean inference.denoise?` where a known name is near enough. */
export function suggestion(name: string, known: readonly string[]): string {
  const nearest = closest(name, known)
  return known.length > 0 && distance(name, nearest) <= Math.ceil(name.length / 3) ? `; did you mean ${nearest}?` : ''
}
