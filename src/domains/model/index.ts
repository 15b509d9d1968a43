/**
 * Weights on disk. Owns: which files a model is. Never touches: sessions, queues.
 * Loading is part of every step on the device, which loads its models first; `load` does it ahead of the work.
 */
import { benchmark } from './benchmark.ts'
import { cache } from './cache.ts'
import { components } from './components.ts'
import { convert } from './convert.ts'
import { evict } from './evict.ts'
import { hash } from './hash.ts'
import { inspect } from './inspect.ts'
import { load } from './load.ts'
import { optimize } from './optimize.ts'
import { resolve } from './resolve.ts'
import { store } from './store.ts'
import { unload } from './unload.ts'
import { validate } from './validate.ts'

export { modelError } from './errors.ts'

export const model = {
  'model.benchmark': benchmark,
  'model.cache': cache,
  'model.components': components,
  'model.convert': convert,
  'model.evict': evict,
  'model.hash': hash,
  'model.inspect': inspect,
  'model.load': load,
  'model.optimize': optimize,
  'model.resolve': resolve,
  'model.store': store,
  'model.unload': unload,
  'model.validate': validate,
}
