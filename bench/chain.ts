/**
 * `engine.chainRatio`, `engine.queuedRatio`: durable workflows of five steps against a BullMQ chain of five jobs that
 * promises nothing; as the product comes, and with each step through its queue. `engine.queuedCpuS`,
 * `engine.queuedAofKB`: what the latter costs.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { Queue, Worker } from 'bullmq'
import { Redis } from 'ioredis'
import { concurrency, length, openBench, type Bench } from './engine.ts'
import { figure, type Benchmark } from './figure.ts'
import { saturate, type Source } from './load.ts'
import { median, medianRatio, range, rounded } from './statistics.ts'

const inFlight = 200
const rounds = 9
const warmUp = { inFlight, rampMs: 500, windowMs: 3000 }
const round = { inFlight, rampMs: 500, windowMs: 2500 }
const costed = { inFlight, rampMs: 500, windowMs: 8000 }

/**
 * The chain without an engine: each job's processor adds the next. Same Redis, same concurrency, same kind of job id.
 */
async function openRaw(redisUrl: string): Promise<Source & AsyncDisposable> {
  // A connection as BullMQ's own documentation makes it: nothing that Darkroom does to its connections helps or harms
  // this chain.
  const connection = new Redis({ path: redisUrl.replace('unix:', ''), maxRetriesPerRequest: null })
  const options = { connection, prefix: 'raw:{q.chain}' }
  const gone = { removeOnComplete: true, removeOnFail: true }
  const queue = new Queue('chain', options)
  let born = 0
  const add = async (id: number, index: number): Promise<void> => {
    await queue.add('step', { id, index }, { ...gone, jobId: `w${id}.${index}` })
  }
  const source: Source & AsyncDisposable = {
    start: () => add(born++, 0),
    onEnd: () => undefined,
    [Symbol.asyncDispose]: async () => {
      await worker.close()
      await queue.close()
      connection.disconnect()
    },
  }
  const worker = new Worker<{ id: number; index: number }>(
    'chain',
    async ({ data: { id, index } }) => {
      if (index + 1 < length) await add(id, index + 1)
    },
    { ...options, concurrency },
  )
  let failed: Error | undefined
  worker.on('error', (error) => (failed = error))
  worker.on('completed', (job) => {
    if (failed) throw failed
    if (job.data.index + 1 === length) source.onEnd()
  })
  await worker.waitUntilReady()
  return source
}

/** What workflows cost under full load: seconds of a processor for 1,000, kB of append-only file for one. */
async function costOf(bench: Bench): Promise<{ cpuS: number; aofKB: number }> {
  const { redis } = bench
  await redis.config('SET', 'auto-aof-rewrite-percentage', '0')
  const read = async (): Promise<{ cpuS: number; aofBytes: number }> => {
    const info = await redis.info()
    const field = (name: string): number => Number(new RegExp(`^${name}:(.+)\r$`, 'm').exec(info)?.[1])
    const { user, system } = process.cpuUsage()
    const cpuS = (user + system) / 1e6 + field('used_cpu_user') + field('used_cpu_sys')
    return { cpuS, aofBytes: field('aof_current_size') }
  }
  while (/^aof_rewrite_in_progress:1\r$/m.test(await redis.info('persistence'))) await delay(50)
  const before = await read()
  const startedAt = performance.now()
  const rate = await saturate(bench, costed)
  const seconds = (performance.now() - startedAt) / 1000
  const after = await read()
  const ended = rate * seconds
  return { cpuS: ((after.cpuS - before.cpuS) / ended) * 1000, aofKB: (after.aofBytes - before.aofBytes) / ended / 1000 }
}

export const chain: Benchmark = {
  figures: ['engine.chainRatio', 'engine.queuedRatio', 'engine.queuedCpuS', 'engine.queuedAofKB'],
  async measure(say) {
    await using engine = await openBench()
    await using queued = await openBench(undefined, { settings: { DARKROOM_STEPS_IN_A_ROW: '1' } })
    await using raw = await openRaw(engine.redisUrl)
    const sources = [
      { name: 'raw BullMQ chain', source: raw, rates: [] as number[] },
      { name: 'durable', source: engine, rates: [] as number[] },
      { name: 'durable, each step through its queue', source: queued, rates: [] as number[] },
    ]
    for (const { source } of sources) await saturate(source, warmUp)
    for (let i = 0; i < rounds; i++) {
      // Which comes first alternates, so that a machine that slows down slows all of them.
      for (const { source, rates } of i % 2 === 0 ? sources : sources.toReversed()) rates.push(await saturate(source, round))
      say(`round ${i + 1}: ${sources.map(({ name, rates }) => `${name} ${rounded(rates[i] ?? 0)}/s`).join(', ')}`)
    }
    const cost = await costOf(queued)
    await engine.check()
    await queued.check()
    for (const { name, rates } of sources) say(`${name}: median ${rounded(median(rates))} workflows/s (${range(rates)})`)
    const [bare = [], durable = [], through = []] = sources.map(({ rates }) => rates)
    return [
      figure('engine.chainRatio', medianRatio(durable, bare), '', { atLeast: 0.6 }),
      figure('engine.queuedRatio', medianRatio(through, bare), '', { atLeast: 0.5 }),
      figure('engine.queuedCpuS', cost.cpuS, 's', { atMost: 4 }),
      figure('engine.queuedAofKB', cost.aofKB, 'kB', { atMost: 15 }),
    ]
  },
}
