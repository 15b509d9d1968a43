/** What an operation may do with models where they lie. */
import type { ShelfTools, StepProgress } from '../domains/operation.ts'
import type { Exactness } from '../domains/values.ts'
import type { Catalogue } from '../models/catalogue.ts'
import { pinOf } from '../models/entry.ts'
import { storeLora } from '../models/storing.ts'
import type { ModelCache } from './device/model-cache.ts'
import type { Convert } from './python/convert.ts'

export interface ShelfParts {
  models: Catalogue
  cache: ModelCache
  convert: Convert
  /** Model folder that gets what is made here. */
  storesIn: string
  exactness: Exactness
  signal: () => AbortSignal
  progress: (progress: StepProgress) => void
  /** Makes the attempt's own folder. */
  makeFolder: () => Promise<string>
}

export const shelfTools = ({ models, cache, convert, storesIn, exactness, signal, progress, makeFolder }: ShelfParts): ShelfTools => ({
  lying: (wanted) => models.lying(wanted),
  async hashed(wanted) {
    const { identity } = await models.hashed(wanted, inBytes('hash', progress), signal())
    return { id: wanted.id, bodyHash: identity?.bodyHash ?? '' }
  },
  validated: (wanted) => models.validated(wanted, inBytes('validate', progress), signal()),
  async converted(wanted) {
    const entry = await models.lying(wanted)
    const made = await convert(entry, { folder: await makeFolder(), progress, signal: signal() })
    models.lookAgain()
    return made
  },
  async stored(name, content) {
    const made = await storeLora(storesIn, name, content)
    models.lookAgain()
    return made
  },
  async cached(wanted) {
    const entry = await models.hashed(wanted, inBytes('hash', progress), signal())
    return cache.fill({ ...pinOf(wanted.id, entry), kind: entry.verdict.kind, entry }, signal(), inBytes('cache', progress))
  },
  recordBenchmark: (bodyHash, figures) => models.benchmarks.record(bodyHash, exactness.key, figures),
})

/** Progress in bytes, counted in MiB. */
export const inBytes =
  (stage: string, progress: (progress: StepProgress) => void) =>
  (done: number, total: number): void => {
    const megabytes = (bytes: number): number => Math.ceil(bytes / 2 ** 20)
    progress({ stage, call: megabytes(done), calls: megabytes(total) })
  }
