/** Looks at the headers of many models in threads. */
import { availableParallelism } from 'node:os'
import { Piscina } from 'piscina'
import type { Entry } from './entry.ts'
import { judge, unjudged, type Judge, type Ranked } from './judge.ts'
import type { Root } from './roots.ts'

/** As few are looked at where they are asked for: a thread takes longer to start. */
const few = 32
/** How many models a thread is given at a time. */
const share = 32
/** How long threads that have nothing to do are kept, ms: what they hold of RAM is more than their start is worth. */
const idleMs = 5000

export class Judges {
  readonly #threads = new Piscina<{ some: readonly Ranked[]; roots: readonly Root[] }, Entry[]>({
    filename: new URL('./judge-thread.mjs', import.meta.url).href,
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: 512 },
    minThreads: 0,
    maxThreads: Math.min(4, availableParallelism()),
    idleTimeout: idleMs,
  })
  #isClosed = false

  readonly judge: Judge = async (some, roots) => {
    if (some.length <= few) return judge(some, roots)
    const shares = Array.from({ length: Math.ceil(some.length / share) }, (_, i) => some.slice(i * share, (i + 1) * share))
    return (await Promise.all(shares.map((each) => this.#ask(each, roots)))).flat()
  }

  /** A model that a thread dies of is found by giving each one of its own. */
  async #ask(some: readonly Ranked[], roots: readonly Root[]): Promise<Entry[]> {
    try {
      return await this.#threads.run({ some, roots })
    } catch (error) {
      if (this.#isClosed) throw error
      if (some.length > 1) return (await Promise.all(some.map((each) => this.#ask([each], roots)))).flat()
      return some.map((each) => unjudged(each, `it could not be looked at: ${(error as Error).message}`))
    }
  }

  close(): Promise<void> {
    this.#isClosed = true
    return this.#threads.destroy()
  }
}
