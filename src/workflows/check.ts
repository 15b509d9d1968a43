/** What is wrong with workflows can be known before the first session: names that do not exist. */
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

/** `; did you mean inference.denoise?` where a name is near enough. */
function suggestion(name: string, known: readonly string[]): string {
  const [nearest] = known.map((each) => ({ each, distance: distance(name, each) })).toSorted((a, b) => a.distance - b.distance)
  return nearest && nearest.distance <= Math.ceil(name.length / 3) ? `; did you mean ${nearest.each}?` : ''
}

/** Levenshtein's distance: how many letters to insert, delete or replace (Wagner & Fischer 1974). */
function distance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, i) => i)
  for (const [i, letter] of [...from].entries()) {
    const next = [i + 1]
    for (const [j, other] of [...to].entries())
      next.push(Math.min((row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1, (row[j] ?? 0) + (letter === other ? 0 : 1)))
    row = next
  }
  return row.at(-1) ?? 0
}
