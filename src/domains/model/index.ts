/**
 * Weights on disk. Owns: which files a model is. Never touches: sessions, queues.
 * Loading is not a step: the worker that takes a step on the device loads its models first.
 */
import { resolve } from './resolve.ts'

export { modelError } from './errors.ts'

export const model = { 'model.resolve': resolve }
