/**
 * Weights on disk. Owns: which files a model is. Never touches: sessions, queues.
 * Loading is part of every step on the device, which loads its models first; `load` does it ahead of the work.
 */
import { hash } from './hash.ts'
import { load } from './load.ts'
import { resolve } from './resolve.ts'

export { modelError } from './errors.ts'

export const model = { 'model.hash': hash, 'model.load': load, 'model.resolve': resolve }
