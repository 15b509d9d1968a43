/**
 * `server.taxShare`, `server.gapMs`: darkroom-tiny drawn over HTTP on this machine's CPU. The share of a session's
 * time, from its POST to its success, in which nothing of it ran in Python; and how long the device stands still
 * between the last step of one queued session and the first of the next.
 */
import { productTimes } from '../src/engine/times.ts'
import { startFarm } from '../test/support/farm.ts'
import { figure, type Benchmark } from './figure.ts'
import { gapsBetween, partsInWords, partsOf, sessionOver, workOf } from './sessions.ts'
import { median, quantile, range, rounded } from './statistics.ts'

const sessions = 12
const queued = 12
/** Some seconds of denoising on two cores. */
const request = { prompt: 'a large green star on black', steps: 40, width: 256, height: 256, model: 'darkroom-tiny' }

export const tax: Benchmark = {
  figures: ['server.taxShare', 'server.gapMs'],
  isLong: true,
  async measure(say) {
    await using farm = await startFarm({ times: productTimes, real: true, checkpointCalls: 1000 })
    // The model is loaded, and hashed, by then.
    await sessionOver(farm, { ...request, seed: 1 })

    const shares: number[] = []
    const taxes: number[] = []
    const parts: Map<string, number>[] = []
    for (let seed = 0; seed < sessions; seed++) {
      const over = await sessionOver(farm, { ...request, seed: 100 + seed })
      const { id, ms } = over
      const { seconds } = await workOf(farm, id)
      parts.push(await partsOf(farm, over))
      taxes.push(ms - seconds * 1000)
      shares.push(1 - (seconds * 1000) / ms)
    }
    say(`${sessions} sessions one by one: ${range(taxes)} ms beside the work, median share ${rounded(median(shares))}`)
    say(`where its time goes, ms: ${partsInWords(parts)}`)

    const ids: string[] = []
    for (let seed = 0; seed < queued; seed++) ids.push(await farm.submit({ ...request, seed: 200 + seed }))
    for (const id of ids) await farm.pictures(id, 300_000)
    const gaps = await gapsBetween(farm, ids)
    say(`${queued} queued sessions: gaps of ${range(gaps)} ms, at most ${rounded(quantile(gaps, 1))}`)
    return [figure('server.taxShare', median(shares), '', { atMost: 0.03 }), figure('server.gapMs', median(gaps), 'ms', { atMost: 50 })]
  },
}
