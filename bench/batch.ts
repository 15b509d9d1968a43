/**
 * `api.batchSubmitMs`: a batch of 10,000 items, from the request to the whole answer `202`: expanded, each looked at,
 * and recorded. Nothing runs meanwhile but what its first items begin with.
 */
import { productTimes } from '../src/engine/times.ts'
import { keys } from '../src/keys.ts'
import { startFarm } from '../test/support/farm.ts'
import { eventually } from '../test/support/wait.ts'
import { figure, type Benchmark } from './figure.ts'
import { timed } from './http.ts'
import { median, range } from './statistics.ts'

const rounds = 5
const rows = Array.from({ length: 100 }, (_, i) => i)

export const batch: Benchmark = {
  figures: ['api.batchSubmitMs'],
  async measure(say) {
    await using farm = await startFarm({ times: productTimes, workers: 1, fake: ['--call-ms', '0'] })
    const times: number[] = []
    for (let round = 0; round < rounds; round++) {
      // Every item differs from every other in more than its seed, so each is made whole.
      const grid = { steps: rows.map((i) => i + 1), guidance: rows.map((i) => 1 + i / 10) }
      const body = { workflow: 'batch', input: { input: { prompt: 'a red circle on a blue background', seed: round }, grid } }
      const { ms, text } = await timed(`${farm.client.url}/v1/sessions`, 'POST', 202, body)
      times.push(ms)
      const { id } = JSON.parse(text) as { id: string }
      await timed(`${farm.client.url}/v1/sessions/${id}/cancel`, 'POST', 200)
      await eventually('all items of the batch know that it is cancelled', async () => (await farm.members(keys.outbox)).length === 0)
    }
    say(`${rounds} batches of ${rows.length ** 2} items, ${range(times)} ms`)
    return [figure('api.batchSubmitMs', median(times), 'ms', { atMost: 2000 })]
  },
}
