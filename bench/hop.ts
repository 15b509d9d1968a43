/**
 * `engine.hopP50Ms`, `engine.hopP99Ms`, `engine.queuedHopP50Ms`, `engine.queuedHopP99Ms`: from the end of one step's
 * work to the beginning of the next one's, at about half load; as the product comes, and with each step through its
 * queue.
 */
import { openBench } from './engine.ts'
import { figure, type Benchmark, type Figure } from './figure.ts'
import { saturate, steady } from './load.ts'
import { quantile, range, rounded } from './statistics.ts'

const calibration = { inFlight: 200, rampMs: 1500, windowMs: 3000 }
const warmUpMs = 2000
const measureMs = 15_000

export const hop: Benchmark = {
  figures: ['engine.hopP50Ms', 'engine.hopP99Ms', 'engine.queuedHopP50Ms', 'engine.queuedHopP99Ms'],
  async measure(say) {
    return [...(await measureHops('hop', {}, say)), ...(await measureHops('queuedHop', { DARKROOM_STEPS_IN_A_ROW: '1' }, say))]
  },
}

async function measureHops(name: string, settings: Record<string, string>, say: (line: string) => void): Promise<Figure[]> {
  const hops: number[] = []
  const lastEnd = new Map<number, number>()
  const run = ({ n, index }: { n: number; index: number }): void => {
    const now = performance.now()
    const before = lastEnd.get(n)
    // The step does nothing: it ends when it begins.
    if (index > 0 && before !== undefined) hops.push(now - before)
    lastEnd.set(n, now)
  }
  await using engine = await openBench(run, { settings })
  const maxRate = await saturate(engine, calibration)
  const rate = Math.max(1, Math.round(maxRate / 2))
  for (const ms of [warmUpMs, measureMs]) {
    hops.length = 0
    lastEnd.clear()
    await steady(engine, rate, ms)
  }
  await engine.check()
  say(`${name}: ${hops.length} at ${rate} workflows/s, half of the ${rounded(maxRate)}/s that it takes; ${range(hops)} ms`)
  return [
    figure(`engine.${name}P50Ms`, quantile(hops, 0.5), 'ms', { atMost: 5 }),
    figure(`engine.${name}P99Ms`, quantile(hops, 0.99), 'ms', { atMost: 20 }),
  ]
}
