/**
 * `workers.togetherRatio`: eight pictures of darkroom-tiny by two workers against the same eight by one, on the CPU,
 * from the first POST to the last success. Two farms take turns; the ratio is the median of the rounds' pairs.
 */
import { productTimes } from '../src/engine/times.ts'
import { startFarm, type Farm } from '../test/support/farm.ts'
import { figure, type Benchmark } from './figure.ts'
import { median, range } from './statistics.ts'

const rounds = 5
const pictures = 8
/** Of each worker: two have the cores that they need on a machine of eight. */
const threads = '4'
/** About a second of denoising by one worker. */
const request = { prompt: 'a large green star on black', steps: 12, width: 256, height: 256, model: 'darkroom-tiny' }

export const together: Benchmark = {
  figures: ['workers.togetherRatio'],
  isLong: true,
  async measure(say) {
    const options = {
      times: productTimes,
      real: true,
      checkpointCalls: 1000,
      settings: { DARKROOM_DEVICE: 'cpu', DARKROOM_THREADS: threads },
    }
    await using one = await startFarm({ ...options, workers: 1 })
    await using two = await startFarm({ ...options, workers: 2 })
    // Models are loaded, and hashed, by then.
    for (const farm of [one, two]) await drawn(farm, 0)
    const times = { one: [] as number[], two: [] as number[], ratios: [] as number[] }
    for (let round = 1; round <= rounds; round++) {
      const alone = await drawn(one, round)
      const { ms, workers } = await drawn(two, round)
      if (workers !== 2) throw new Error(`void: ${workers} workers drew`)
      times.one.push(alone.ms)
      times.two.push(ms)
      times.ratios.push(ms / alone.ms)
    }
    say(`${pictures} pictures: ${range(times.one)} ms by one worker, ${range(times.two)} ms by two; ratios ${range(times.ratios)}`)
    return [figure('workers.togetherRatio', median(times.ratios), '', { atMost: 0.55 })]
  },
}

/** How long all took, and how many workers denoised. */
async function drawn(farm: Farm, round: number): Promise<{ ms: number; workers: number }> {
  const began = performance.now()
  const ids = await Promise.all(Array.from({ length: pictures }, (_, i) => farm.submit({ ...request, seed: round * 100 + i })))
  await Promise.all(ids.map((id) => farm.until(id, 'succeeded', 300_000)))
  const ms = performance.now() - began
  const receipts = await Promise.all(ids.map((id) => farm.receipt(id)))
  const denoised = receipts.flatMap(({ steps }) => steps.filter(({ step }) => step === 'inference.denoise'))
  return { ms, workers: new Set(denoised.flatMap(({ attempts }) => attempts.map(({ worker }) => worker))).size }
}
