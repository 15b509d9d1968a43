/** What is to be undone of a session. Pure. */
import type { Registry } from './registry.ts'
import type { Cause } from './store.ts'
import type { Document } from './transition.ts'

/** A step that undoes another. */
export type Undoing = NonNullable<Document['undo']>[number]

/** What a result adds to what is to be undone: nothing of a failure, or of a step that nothing undoes. */
export function undoneBy(registry: Registry, workflow: string, { effects }: Document, { event, name }: Cause): Undoing[] {
  const undo = registry.workflow(workflow)?.undo
  if (!undo || !event?.type.startsWith('xstate.done.actor.')) return []
  const effect = Object.values(effects).find(({ suffix }) => suffix === name)
  if (!effect || 'event' in effect || 'items' in effect) return []
  const source = 'step' in effect ? effect.step : effect.session
  const undoing = undo[source]?.({ input: effect.input, output: event['output'] })
  return undoing ? [undoing] : []
}
