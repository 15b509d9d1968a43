/** `engine.chainRatio`: durable workflows of five steps against a BullMQ chain of five jobs that promises nothing. */
import { Queue, Worker } from 'bullmq'
import { Redis } from 'ioredis'
import { concurrency, length, openBench } from './engine.ts'
import { figure, type Benchmark } from './figure.ts'
import { saturate, type Source } from './load.ts'
import { median, range, rounded } from './statistics.ts'

const inFlight = 200
const rounds = 9
const warmUp = { inFlight, rampMs: 500, windowMs: 3000 }
const round = { inFlight, rampMs: 500, windowMs: 2500 }

/** The chain without an engine: each job's processor adds the next. Same Redis, same concurrency, same kind of job id. */
async function openRaw(redisUrl: string): Promise<Source & AsyncDisposable> {
  // A connection as BullMQ's own documentation makes it: nothing that Darkroom does to its connections helps or harms this chain.
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

export const chain: Benchmark = {
  figures: ['engine.chainRatio'],
  async measure(say) {
    await using engine = await openBench()
    await using raw = await openRaw(engine.redisUrl)
    const durable: number[] = []
    const bare: number[] = []
    for (const source of [raw, engine]) await saturate(source, warmUp)
    for (let i = 0; i < rounds; i++) {
      // Which comes first alternates, so that a machine that slows down slows both.
      for (const source of i % 2 === 0 ? [raw, engine] : [engine, raw]) {
        const rate = await saturate(source, round)
        ;(source === engine ? durable : bare).push(rate)
      }
      say(`round ${i + 1}: raw ${rounded(bare[i] ?? 0)}/s, durable ${rounded(durable[i] ?? 0)}/s`)
    }
    await engine.check()
    say(
      `raw BullMQ chain: median ${rounded(median(bare))} workflows/s (${range(bare)}); durable: ${rounded(median(durable))} (${range(durable)})`,
    )
    return [figure('engine.chainRatio', median(durable) / median(bare), '', { atLeast: 0.4 })]
  },
}
