import { fromPromise, type PromiseActorLogic } from 'xstate'

/** Declares a durable step as an actor source: `setup({ actors: { 'inference.denoise': step<Input, Output>() } })`. It is never started. */
export function step<Input, Output>(): PromiseActorLogic<Output, Input> {
  return fromPromise<Output, Input>(() => Promise.reject(new Error('steps run on workers, never inside a machine')))
}
