import { fromPromise, type PromiseActorLogic } from 'xstate'

const sessions = new WeakSet<object>()

/**
 * Declares a child session as an actor source, named by the workflow it runs: `setup({ actors: { 'image-generation@1': session<Input, Output>() } })`.
 * Its input is what a client may send; it ends with the session's output, or with its error. It is never started.
 */
export function session<Input, Output>(): PromiseActorLogic<Output, Input> {
  const logic = fromPromise<Output, Input>(() => Promise.reject(new Error('child sessions run by themselves, never inside a machine')))
  sessions.add(logic)
  return logic
}

export const isSession = (logic: unknown): boolean => typeof logic === 'object' && logic !== null && sessions.has(logic)
