/**
 * Weights on disk. Owns: which files a model is. Never touches: sessions, queues.
 * Loading is not a step: whoever takes a step on the GPU ensures its model first.
 */
import './errors.ts'
import { operation } from '../operation.ts'
import { resolve } from './operations.ts'
import { ResolveInput, ResolveOutput } from './schema.ts'

export const model = {
  'model.resolve': operation({ run: resolve, input: ResolveInput, output: ResolveOutput, lane: 'host', attempts: 3, timeoutMs: 120_000 }),
}
