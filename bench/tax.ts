/**
 * `server.taxShare`, `server.gapMs`: darkroom-tiny drawn over HTTP on this machine's CPU. The share of a session's
 * time, from its POST to its success, in which nothing of it ran in Python; and how long the device stands still
 * between the last step of one queued session and the first of the next.
 */
import { productTimes } from '../src/engine/times.ts'
import { startFarm, type Farm } from '../test/support/farm.ts'
import { figure, type Benchmark } from './figure.ts'
import { timed } from './http.ts'
import { median, quantile, range, rounded } from './statistics.ts'

const sessions = 12
const queued = 12
/** Some seconds of denoising on two cores. */
const request = { prompt: 'a large green star on black', steps: 40, width: 256, height: 256, model: 'darkroom-tiny' }
/** What runs in Python, on the device. */
const onDevice = new Set(['inference.encode', 'inference.denoise', 'inference.decode'])

interface Span {
  from: number
  to: number
}

/** Seconds of the session's work on the device, as the child measured them, and when its steps there ran. */
async function workOf(farm: Farm, id: string): Promise<{ seconds: number; spans: Span[] }> {
  const { steps } = await farm.receipt(id)
  const attempts = steps.filter(({ step }) => onDevice.has(step)).flatMap(({ attempts: all }) => all)
  if (attempts.some(({ end }) => end !== 'completed')) throw new Error(`void: an attempt of ${id} did not complete`)
  const seconds = attempts.reduce((sum, { stats }) => sum + Number(stats?.['seconds']), 0)
  const spans = attempts.map(({ startedAt, endedAt }) => ({ from: Date.parse(startedAt), to: Date.parse(endedAt ?? '') }))
  return { seconds, spans }
}

export const tax: Benchmark = {
  figures: ['server.taxShare', 'server.gapMs'],
  isLong: true,
  async measure(say) {
    await using farm = await startFarm({ times: productTimes, real: true, settings: { DARKROOM_CHECKPOINT_CALLS: '1000' } })
    const post = async (seed: number, wait = ''): Promise<{ id: string; ms: number }> => {
      const headers = wait === '' ? {} : { Prefer: `wait=${wait}` }
      const body = { workflow: 'image-generation', input: { ...request, seed } }
      const { ms, text } = await timed(`${farm.client.url}/v1/sessions`, 'POST', wait === '' ? 202 : 200, body, headers)
      return { id: (JSON.parse(text) as { id: string }).id, ms }
    }
    // The model is loaded, and hashed, by then.
    await post(1, '120')

    const shares: number[] = []
    const taxes: number[] = []
    for (let seed = 0; seed < sessions; seed++) {
      const { id, ms } = await post(100 + seed, '120')
      const { seconds } = await workOf(farm, id)
      taxes.push(ms - seconds * 1000)
      shares.push(1 - (seconds * 1000) / ms)
    }
    say(`${sessions} sessions one by one: ${range(taxes)} ms beside the work, median share ${rounded(median(shares))}`)

    const ids: string[] = []
    for (let seed = 0; seed < queued; seed++) ids.push((await post(200 + seed)).id)
    const spans: Span[] = []
    for (const id of ids) {
      await farm.pictures(id, 300_000)
      const { spans: own } = await workOf(farm, id)
      spans.push({ from: Math.min(...own.map(({ from }) => from)), to: Math.max(...own.map(({ to }) => to)) })
    }
    spans.sort((a, b) => a.from - b.from)
    const gaps = spans.slice(1).map(({ from }, i) => from - (spans[i]?.to ?? 0))
    say(`${queued} queued sessions: gaps of ${range(gaps)} ms, at most ${rounded(quantile(gaps, 1))}`)
    return [figure('server.taxShare', median(shares), '', { atMost: 0.03 }), figure('server.gapMs', median(gaps), 'ms', { atMost: 50 })]
  },
}
