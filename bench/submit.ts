/**
 * `api.submitP50Ms`, `api.submitP99Ms`: from the request to the whole answer `202`, while a worker draws what was
 * submitted.
 */
import { productTimes } from '../src/engine/times.ts'
import { keys } from '../src/keys.ts'
import { startFarm } from '../test/support/farm.ts'
import { figure, type Benchmark } from './figure.ts'
import { timed } from './http.ts'
import { steady } from './load.ts'
import { quantile, range, rounded } from './statistics.ts'

/** Sessions a second: what one worker with the fake child keeps up with on two cores. */
const rate = 20
const warmUpMs = 4000
const measureMs = 20_000

export const submit: Benchmark = {
  figures: ['api.submitP50Ms', 'api.submitP99Ms'],
  async measure(say) {
    await using farm = await startFarm({ times: productTimes, workers: 1, fake: ['--call-ms', '0'] })
    const times: number[] = []
    const ids: string[] = []
    const source = {
      onEnd: (): void => undefined,
      start: async (n: number): Promise<void> => {
        const body = { workflow: 'image-generation', input: { prompt: 'a red circle on a blue background', seed: n, steps: 2 } }
        const { ms, text } = await timed(`${farm.client.url}/v1/sessions`, 'POST', 202, body)
        times.push(ms)
        ids.push((JSON.parse(text) as { id: string }).id)
        source.onEnd()
      },
    }
    await steady(source, rate, warmUpMs)
    times.length = 0
    await steady(source, rate, measureMs)
    const behind = (await farm.eye.zcard(keys.index(0, 'status', 'queued'))) / ids.length
    await Promise.all(ids.map((id) => farm.until(id, 'succeeded', 60_000)))
    say(`${times.length} submits at ${rate}/s, ${range(times)} ms; ${rounded(behind * 100)} % of the sessions still queued at the end`)
    return [
      figure('api.submitP50Ms', quantile(times, 0.5), 'ms', { atMost: 5 }),
      figure('api.submitP99Ms', quantile(times, 0.99), 'ms', { atMost: 25 }),
    ]
  },
}
