import { fromPromise, type PromiseActorLogic } from 'xstate'
import type { z } from 'zod'
import { workflowId, type Defined } from './define.ts'

const sessions = new WeakSet<object>()

/**
 * An actor source for a child session of that input and output; the source's name is the workflow that it runs. Its
 * input is what a client may send; it ends with the session's output, or with its error. Where the workflow is at hand,
 * `child` knows both.
 */
export function session<Input, Output>(): PromiseActorLogic<Output, Input> {
  const logic = fromPromise<Output, Input>(() => Promise.reject(new Error('child sessions run by themselves, never inside a machine')))
  sessions.add(logic)
  return logic
}

/**
 * Child sessions as actor sources, typed by their workflow: `setup({ actors: child(imageGeneration) })` names it
 * `image-generation@1`.
 */
export function child<Name extends string, Version extends number, Input extends z.ZodType, Output extends z.ZodType>(
  workflow: Defined<Name, Version, Input, Output>,
): Record<`${Name}@${Version}`, PromiseActorLogic<z.output<Output>, z.input<Input>>> {
  const source = { [workflowId(workflow)]: session<z.input<Input>, z.output<Output>>() }
  return source as Record<`${Name}@${Version}`, PromiseActorLogic<z.output<Output>, z.input<Input>>>
}

export const isSession = (logic: unknown): boolean => typeof logic === 'object' && logic !== null && sessions.has(logic)
