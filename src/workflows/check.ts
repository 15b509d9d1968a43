/** What is wrong with workflows can be known before the first session: names that do not exist. */
import { closest, distance } from 'fastest-levenshtein'
import type { OperationTable } from '../domains/operation.ts'
import { workflowError } from '../errors.ts'
import { isSession } from './child-session.ts'
import { workflowId, type Workflow } from './define.ts'

/**
 * Compares the actors of every machine with the operations and workflows there are.
 * @throws DarkroomError `workflow.broken` with every unknown name, and the known one that is nearest to it
 */
export function checkWorkflows(workflows: readonly Workflow[], operations: OperationTable): void {
  const ids = workflows.map(workflowId)
  const twice = ids.filter((id, i) => ids.indexOf(id) !== i).map((id) => `there are two workflows ${id}`)
  const unknown = workflows.flatMap((workflow) => {
    const actors = Object.entries(workflow.machine.implementations.actors as Record<string, unknown>)
    return actors.flatMap(([name, logic]) => {
      const [kind, known] = isSession(logic) ? ['workflow', ids] : ['operation', Object.keys(operations)]
      return known.includes(name) ? [] : [`${workflowId(workflow)} names ${kind} ${name}, which does not exist${suggestion(name, known)}`]
    })
  })
  const problems = [...twice, ...unknown]
  if (problems.length > 0) throw workflowError('broken', problems.join('; '))
}

/** `; did you mean inference.denoise?` where a known name is near enough. */
function suggestion(name: string, known: readonly string[]): string {
  const nearest = closest(name, known)
  return known.length > 0 && distance(name, nearest) <= Math.ceil(name.length / 3) ? `; did you mean ${nearest}?` : ''
}
