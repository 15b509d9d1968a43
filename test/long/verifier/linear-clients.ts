/** Clients that ask one session for things at once, through whichever API, and record what they asked and heard. */
import { ended, type Status } from '../../../src/engine/session.ts'
import { step } from '../../support/program.ts'
import { sleep } from '../../support/wait.ts'
import type { Driver } from './driver.ts'
import type { Answer, Asked, Recorded, Seen } from './linear-model.ts'

/** Clients of each session, and how many requests each of them sends at random. */
export const clients = 4
const requests = 5
/** How far apart they send those of one moment, ms. */
const apartMs = 8
/** Signals that a session waits for before its one step. */
export const needed = 2

/** One session, and what its clients have recorded of it. */
export interface Round {
  key: string
  history: Recorded[]
  /** How it has ended; undefined while nobody has seen that. */
  end: Status | undefined
}

export interface Play {
  driver: Driver
  round: Round
  ledger: string
  draw: () => number
  /** Resolves when the faults are over. */
  calm: Promise<void>
  /** Called when its clients ask no more until then. */
  onDoubt: () => void
  /** Aborted when there is no more time. */
  over: AbortSignal
}

/** Plays one session to its end, or until there is no more time. */
export async function play({ driver, round, ledger, draw, calm, onDoubt, over }: Play): Promise<void> {
  const { history, key } = round
  let id = ''
  /** Asks once. True when there was an answer. */
  const ask = async (client: number, asked: Asked, method: string, path: string, body?: object): Promise<boolean> => {
    const api = driver.choose(draw)
    const recorded: Recorded = {
      client,
      api: api.process.name,
      asked,
      calledAt: performance.now(),
      answeredAt: Infinity,
      answer: undefined,
    }
    history.push(recorded)
    const headers = asked.do === 'submit' ? { 'Idempotency-Key': key } : {}
    const heard = await driver.ask(method, path, draw, { headers, ...(body && { body }) }, api)
    if (!heard) return false
    recorded.answeredAt = performance.now()
    recorded.answer = answerOf(heard.status, heard.json)
    const { seen } = recorded.answer
    if (seen && id === '') id = seen.id
    if (seen && ended.has(seen.status)) round.end = seen.status
    return true
  }
  const surely = async (act: () => Promise<boolean>): Promise<void> => {
    while (!over.aborted && !(await act())) await sleep(200)
  }

  const pace = { ms: 100 + Math.floor(draw() * 2900), isDeaf: draw() < 0.5 }
  const program = { do: 'sequence', of: [...Array.from({ length: needed }, () => ({ do: 'signal' })), step(pace)] }
  const submission = { workflow: 'program', input: { ledger, key, program }, tags: [key] }
  const submit = (client: number) => () => ask(client, { do: 'submit' }, 'POST', '/v1/sessions', submission)
  await Promise.all([surely(submit(0)), ...(draw() < 0.5 ? [surely(submit(1))] : [])])
  if (id === '') return
  const path = `/v1/sessions/${id}`
  const signal = (client: number, word: string) =>
    ask(client, { do: 'signal', word }, 'POST', `${path}/signal`, { type: 'go', eventId: word, data: { word } })
  const control = (client: number, verb: 'pause' | 'resume' | 'cancel') => ask(client, { do: verb }, 'POST', `${path}/${verb}`)
  const get = (client: number) => ask(client, { do: 'get' }, 'GET', path)
  const words = Array.from({ length: needed + 1 }, (_, i) => `w${i}`)
  const any = (client: number): Promise<boolean> => {
    const what = draw()
    if (what < 0.3) return signal(client, words[Math.floor(draw() * words.length)] as string)
    if (what < 0.5) return control(client, 'pause')
    if (what < 0.67) return control(client, 'resume')
    return what < 0.7 ? control(client, 'cancel') : get(client)
  }
  // All ask at about the same moments: how often their requests meet must not follow from how fast they are answered.
  const from = performance.now()
  let at = 0
  const moments = Array.from({ length: requests }, () => (at += 50 + draw() * 350))
  const client = async (_: unknown, i: number): Promise<void> => {
    for (const moment of moments) {
      await sleep(Math.max(0, from + moment + draw() * apartMs - performance.now()))
      if (over.aborted) return
      await any(i)
    }
  }
  await Promise.all(Array.from({ length: clients }, client))
  // What is left is asked for until it is over: in doubt only once nothing is broken any more.
  for (let n = 0; round.end === undefined && !over.aborted; n++) {
    if (n === 20) {
      onDoubt()
      await calm
    }
    // Each that nobody hears of makes more orders possible.
    if (n % 20 === 0) {
      await control(0, 'resume')
      for (const word of words) await signal(0, word)
    }
    await sleep(300)
    await get(1 + (n % (clients - 1)))
  }
}

/** What of an answer the model speaks of. */
export function answerOf(code: number, json: unknown): Answer {
  if (code >= 400) {
    const { detail = '' } = (json ?? {}) as { detail?: string }
    return { code, ended: /^session \S+ has (\w+)$/.exec(detail)?.[1] as Status | undefined }
  }
  const { id, status, version, output } = json as Omit<Seen, 'said'> & { output: { said: { word?: string }[] } | null }
  return { code, seen: { id, status, version, said: (output?.said ?? []).flatMap(({ word }) => word ?? []) } }
}
