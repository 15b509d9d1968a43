/** `engine.hopP50Ms`, `engine.hopP99Ms`: from the end of one step's work to the beginning of the next one's through its queue, at about half load. */
import { openBench } from './engine.ts'
import { figure, type Benchmark } from './figure.ts'
import { saturate, steady } from './load.ts'
import { quantile, range, rounded } from './statistics.ts'

const calibration = { inFlight: 200, rampMs: 1500, windowMs: 3000 }
const warmUpMs = 2000
const measureMs = 15_000

export const hop: Benchmark = {
  figures: ['engine.hopP50Ms', 'engine.hopP99Ms'],
  async measure(say) {
    const hops: number[] = []
    const lastEnd = new Map<number, number>()
    const run = ({ n, index }: { n: number; index: number }): void => {
      const now = performance.now()
      const before = lastEnd.get(n)
      // The step does nothing: it ends when it begins.
      if (index > 0 && before !== undefined) hops.push(now - before)
      lastEnd.set(n, now)
    }
    // The longer way: what a worker goes on with waits for nobody.
    await using engine = await openBench(run, { settings: { DARKROOM_STEPS_IN_A_ROW: '1' } })
    const most = await saturate(engine, calibration)
    const rate = Math.max(1, Math.round(most / 2))
    for (const ms of [warmUpMs, measureMs]) {
      hops.length = 0
      lastEnd.clear()
      await steady(engine, rate, ms)
    }
    await engine.check()
    say(`${hops.length} hops at ${rate} workflows/s, half of the ${rounded(most)}/s that it takes; ${range(hops)} ms`)
    return [
      figure('engine.hopP50Ms', quantile(hops, 0.5), 'ms', { atMost: 5 }),
      figure('engine.hopP99Ms', quantile(hops, 0.99), 'ms', { atMost: 20 }),
    ]
  },
}
