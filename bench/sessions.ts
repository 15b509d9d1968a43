/** Sessions over HTTP as benchmarks look at them: how long one takes, and what its device did of that. */
import type { Farm } from '../test/support/farm.ts'
import { timed } from './http.ts'

/** What runs in Python, on the device. */
const onDevice = new Set(['inference.encode', 'inference.denoise', 'inference.decode'])
const patienceS = 120

export interface Span {
  from: number
  to: number
}

export interface Work {
  /** Of all its steps on the device, as the child measured them. */
  seconds: number
  /** The same by step. */
  of: Record<string, number>
  /** From the first of them to the last, ms since the epoch. */
  span: Span
}

/** From POST to the answer that says it succeeded, ms. */
export async function sessionOver(farm: Farm, input: object): Promise<{ id: string; ms: number }> {
  const body = { workflow: 'image-generation', input }
  const headers = { Prefer: `wait=${patienceS}` }
  const { ms, text } = await timed(`${farm.client.url}/v1/sessions`, 'POST', 200, body, headers)
  const { id, status } = JSON.parse(text) as { id: string; status: string }
  if (status !== 'succeeded') throw new Error(`void: ${id} is ${status}: ${text}`)
  return { id, ms }
}

/** What of a session ran on the device. @throws Error when an attempt of it did not complete */
export async function workOf(farm: Farm, id: string): Promise<Work> {
  const { steps } = await farm.receipt(id)
  const own = steps.filter(({ step }) => onDevice.has(step))
  if (own.some(({ attempts }) => attempts.some(({ end }) => end !== 'completed')))
    throw new Error(`void: an attempt of ${id} did not complete`)
  const secondsOf = ({ attempts }: (typeof own)[number]): number => attempts.reduce((sum, { stats }) => sum + Number(stats?.['seconds']), 0)
  const attempts = own.flatMap((step) => step.attempts)
  return {
    seconds: own.reduce((sum, step) => sum + secondsOf(step), 0),
    of: Object.fromEntries(own.map((step) => [step.step, secondsOf(step)])),
    span: {
      from: Math.min(...attempts.map(({ startedAt }) => Date.parse(startedAt))),
      to: Math.max(...attempts.map(({ endedAt }) => Date.parse(endedAt ?? ''))),
    },
  }
}

/** How long the device stood still between sessions that were all in the queue, ms: one gap less than there are. */
export async function gapsBetween(farm: Farm, ids: readonly string[]): Promise<number[]> {
  const spans: Span[] = []
  for (const id of ids) spans.push((await workOf(farm, id)).span)
  spans.sort((a, b) => a.from - b.from)
  return spans.slice(1).map(({ from }, i) => from - (spans[i]?.to ?? 0))
}
