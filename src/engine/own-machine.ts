/**
 * The machine of a workflow of one's own, which Darkroom's authors have not seen: every transition must end in time and
 * give the same when it runs a second time. Any process may compute it, and again when another event came first; so
 * what depends on anything but state and event would differ from one to the next.
 */
import type { AnyEventObject } from 'xstate'
import { DarkroomError, workflowError } from '../errors.ts'
import { purely } from '../workflows/own/purely.ts'
import { PureMachine, type Document, type Loaded, type Transition } from './transition.ts'

export class OwnMachine extends PureMachine {
  /** @throws DarkroomError `workflow.broken` also where it is not the same twice */
  override start(input: unknown, version: number): Transition {
    return twice(() => super.start(input, version))
  }

  /** @throws DarkroomError `workflow.broken` also where it is not the same twice */
  override next(from: Loaded, event: AnyEventObject, completed: string | undefined, version: number): Transition {
    return twice(() => super.next(from, event, completed, version))
  }
}

function twice(run: () => Transition): Transition {
  const first = purely(run)
  const text = JSON.stringify(first.document)
  const again = purely(run)
  if (JSON.stringify(again.document) !== text) {
    const differing = differences(JSON.parse(text) as Document, JSON.parse(JSON.stringify(again.document)) as Document)
    throw workflowError(
      'broken',
      `the same event gave another state when it was applied a second time (${differing}): a machine may keep nothing outside its context, and change nothing in it but by assign`,
    )
  }
  return again
}

/** Names what differs: a field of the context, or of the document. */
function differences(one: Document, other: Document): string {
  const fields = (document: Document): Record<string, unknown> => {
    const { context, ...rest } = document
    const inside = typeof context === 'object' && context !== null ? Object.entries(context) : []
    return { ...rest, ...Object.fromEntries(inside.map(([name, value]) => [`context.${name}`, value])) }
  }
  const [before, after] = [fields(one), fields(other)]
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])]
  return names.filter((name) => JSON.stringify(before[name]) !== JSON.stringify(after[name])).join(', ')
}

/** The same error, said of the workflow it is about. */
export const aboutWorkflow = (workflow: string, error: unknown): DarkroomError =>
  error instanceof DarkroomError && error.code !== 'workflow.broken'
    ? error
    : workflowError('broken', `${workflow}: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
