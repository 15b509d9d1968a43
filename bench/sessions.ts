/** Sessions over HTTP as benchmarks look at them: how long one takes, and what its device did of that. */
import type { Farm } from '../test/support/farm.ts'
import { timed } from './http.ts'
import { median, rounded } from './statistics.ts'

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

/** A session that has succeeded: from POST to the answer that says so, `ms`, and by the clock of this machine. */
export interface Over extends Span {
  id: string
  ms: number
}

export async function sessionOver(farm: Farm, input: object): Promise<Over> {
  const body = { workflow: 'image-generation', input }
  const headers = { Prefer: `wait=${patienceS}` }
  const from = Date.now()
  const { ms, text } = await timed(`${farm.client.url}/v1/sessions`, 'POST', 200, body, headers)
  const { id, status } = JSON.parse(text) as { id: string; status: string }
  if (status !== 'succeeded') throw new Error(`void: ${id} is ${status}: ${text}`)
  return { id, ms, from, to: from + ms }
}

/**
 * Where a session's time went, ms, in order: of each step what its worker did around the work in Python, and that work
 * itself, as the child measured it; between them what the engine and the queues took. The farm is of this machine.
 */
export async function partsOf(farm: Farm, { id, from, to }: Over): Promise<Map<string, number>> {
  const { steps } = await farm.receipt(id)
  const attempts = steps.flatMap(({ step, attempts: its }) => its.map((attempt) => ({ verb: step.replace(/^.*\./, ''), ...attempt })))
  const parts = new Map<string, number>()
  const add = (name: string, ms: number): void => void parts.set(name, (parts.get(name) ?? 0) + ms)
  let last = from
  for (const { verb, startedAt, endedAt, stats } of attempts.toSorted((a, b) => Date.parse(a.startedAt) - Date.parse(b.startedAt))) {
    const [began, ended] = [Date.parse(startedAt), Date.parse(endedAt ?? '')]
    const worked = Number(stats?.['seconds'] ?? 0) * 1000
    add(`→ ${verb}`, began - last)
    add(verb, ended - began - worked)
    if (worked > 0) add(`${verb} in Python`, worked)
    last = ended
  }
  add('→ answer', to - last)
  return parts
}

/** The medians of these, in words. */
export function partsInWords(all: readonly ReadonlyMap<string, number>[]): string {
  const names = [...new Set(all.flatMap((parts) => [...parts.keys()]))]
  return names.map((name) => `${name} ${rounded(median(all.map((parts) => parts.get(name) ?? 0)))}`).join(', ')
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
