/** `api.listRatio`: a filtered page of sessions out of 100,000 finished ones, against the same page out of 100. */
import { setTimeout as delay } from 'node:timers/promises'
import { productTimes } from '../src/engine/times.ts'
import { keys, newSessionId } from '../src/keys.ts'
import { startFarm, type Farm } from '../test/support/farm.ts'
import { figure, type Benchmark } from './figure.ts'
import { timed } from './http.ts'
import { median, medianRatio, rounded } from './statistics.ts'

const few = 100
const many = 100_000
/** Sessions with the tag that few have; also the size of a page. */
const page = 20
const filters = ['status=succeeded', 'workflow=image-generation', 'tag=often', 'status=succeeded&tag=seldom']
const warmUps = 30
const requests = 200
/** Sessions written in one pipeline. */
const batch = 500

/** What the engine left of one finished session, by the kind of its key. */
interface Remains {
  id: string
  createdAt: number
  session: Record<string, string>
  history: string[]
  references: string[]
  /** Indexes that name it, without those of its tags. */
  indexes: string[]
}

/**
 * Runs one session to its end and reads what it left.
 * @throws Error when that is something else than this file knows how to write
 */
async function finishOne(farm: Farm): Promise<Remains> {
  const id = await farm.submit({}, { tags: ['often'] })
  await farm.until(id, 'succeeded')
  const [session, history, references] = await Promise.all([
    farm.eye.hgetall(keys.session(id)),
    farm.eye.lrange(keys.history(id), 0, -1),
    farm.eye.smembers(keys.references(id)),
  ])
  const indexes = [
    keys.index(0, 'all'),
    keys.index(0, 'ended'),
    keys.index(0, 'status', 'succeeded'),
    keys.index(0, 'workflow', 'image-generation'),
  ]
  const known = new Set([keys.session(id), keys.history(id), keys.references(id), ...indexes, keys.index(0, 'tag', 'often')])
  for (const sha256 of references) known.add(keys.named(0, sha256))
  // Counted for all sessions of the shard together: what they may still need, how many there were, what they used,
  // their turns on devices.
  const turns = keys.lines(0).replace(/lines$/, 'turns')
  for (const key of [keys.reserved(0), keys.clock(0), keys.totals(0), keys.use(0, 'local'), turns]) known.add(key)
  const left = (await farm.eye.keys('darkroom:{s0}:*')).filter((key) => !known.has(key))
  if (left.length > 0) throw new Error(`void: a finished session leaves ${left.join(', ')} too`)
  return { id, createdAt: Number(session['createdAt']), session, history, references, indexes }
}

/**
 * Writes finished sessions like that one until there are `total`, the oldest last; `page` of them, evenly spread, have
 * a tag more.
 */
async function fill(farm: Farm, remains: Remains, total: number): Promise<void> {
  const { id, createdAt, session, history, references, indexes } = remains
  const [text, entries] = [JSON.stringify(session), JSON.stringify(history)]
  for (let from = 0; from < total; from += batch) {
    const pipeline = farm.eye.pipeline()
    for (let i = from; i < Math.min(total, from + batch); i++) {
      const at = createdAt - 1000 * i
      const copy = newSessionId(0, at)
      const tags = i % (total / page) === 0 ? ['often', 'seldom'] : ['often']
      const fields = JSON.parse(text.replaceAll(id, copy)) as Record<string, string>
      pipeline.hset(keys.session(copy), { ...fields, tags: JSON.stringify(tags), createdAt: String(at) })
      pipeline.rpush(keys.history(copy), ...(JSON.parse(entries.replaceAll(id, copy)) as string[]))
      for (const sha256 of references) {
        pipeline.sadd(keys.references(copy), sha256)
        pipeline.sadd(keys.named(0, sha256), copy)
      }
      for (const index of [...indexes, ...tags.map((tag) => keys.index(0, 'tag', tag))]) pipeline.zadd(index, at, copy)
    }
    for (const [error] of (await pipeline.exec()) ?? []) if (error) throw error
  }
}

/** Waits until Redis has written its append-only file anew, if it does: a fork is not what is measured. */
async function settled(farm: Farm): Promise<void> {
  while (!/aof_rewrite_in_progress:0/.test(await farm.eye.info('persistence'))) await delay(100)
}

export const list: Benchmark = {
  figures: ['api.listRatio'],
  async measure(say) {
    await using small = await startFarm({ times: productTimes, workers: 1, fake: ['--call-ms', '0'] })
    await using large = await startFarm({ times: productTimes, workers: 0 })
    const remains = await finishOne(small)
    await small.workers[0]?.stop(12_000)
    const from = performance.now()
    await small.eye.del(keys.session(remains.id), keys.history(remains.id), keys.references(remains.id), ...remains.indexes)
    await small.eye.del(keys.index(0, 'tag', 'often'), ...remains.references.map((sha256) => keys.named(0, sha256)))
    await fill(small, remains, few)
    await fill(large, remains, many)
    await Promise.all([settled(small), settled(large)])
    say(`wrote ${many} finished sessions in ${rounded((performance.now() - from) / 1000)} s`)

    const ratios: number[] = []
    for (const filter of filters) {
      const times = { small: [] as number[], large: [] as number[] }
      const ask = async (farm: Farm, into: number[]): Promise<void> => {
        const { ms, text } = await timed(`${farm.client.url}/v1/sessions?limit=${page}&${filter}`, 'GET', 200)
        const { sessions } = JSON.parse(text) as { sessions: unknown[] }
        if (sessions.length !== page) throw new Error(`void: a page of ${sessions.length} for ${filter}`)
        into.push(ms)
      }
      for (let i = -warmUps; i < requests; i++) {
        if (i === 0) times.small.length = times.large.length = 0
        for (const size of i % 2 === 0 ? (['small', 'large'] as const) : (['large', 'small'] as const))
          await ask(size === 'small' ? small : large, times[size])
      }
      const ratio = medianRatio(times.large, times.small)
      ratios.push(ratio)
      say(`${filter}: ${rounded(median(times.small))} ms of ${few}, ${rounded(median(times.large))} ms of ${many}, ratio ${rounded(ratio)}`)
    }
    // The farms' own look at every session they hold would take minutes.
    await Promise.all([small, large].map((farm) => farm.eye.flushall()))
    return [figure('api.listRatio', Math.max(...ratios), '', { atMost: 1.5 })]
  },
}
