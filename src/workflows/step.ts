import { fromPromise, type PromiseActorLogic } from 'xstate'
import type { Operations, StepName } from '../domains/index.ts'
import type { Operation } from '../domains/operation.ts'

export type InputOf<Name extends StepName> = Operations[Name] extends Operation<infer Input, unknown> ? Input : never
export type OutputOf<Name extends StepName> = Operations[Name] extends Operation<infer _Input, infer Output> ? Output : never

/** A step as an actor source of a machine. */
export type Step<Name extends StepName> = PromiseActorLogic<OutputOf<Name>, InputOf<Name>>

/**
 * An actor source for a step of that input and output. Machines of the product use `steps`, which knows both by the
 * step's name.
 */
export function step<Input, Output>(): PromiseActorLogic<Output, Input> {
  return fromPromise<Output, Input>(() => Promise.reject(new Error('steps run on workers, never inside a machine')))
}

/**
 * Durable steps as actor sources, typed by their operations:
 * `setup({ actors: steps('inference.encode', 'inference.denoise') })`.
 */
export function steps<const Names extends readonly StepName[]>(...names: Names): { [Name in Names[number]]: Step<Name> } {
  return Object.fromEntries(names.map((name) => [name, step()])) as { [Name in Names[number]]: Step<Name> }
}
