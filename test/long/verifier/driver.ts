/** Clients: each drives one scenario through HTTP as a careful user would, and notes what it was told. */
import { setTimeout as delay } from 'node:timers/promises'
import { ended } from '../../../src/engine/session.ts'
import { validatorOf, type Answer, type SendOptions } from '../../support/http.ts'
import type { Asked } from './faults.ts'
import type { Fleet } from './fleet.ts'
import type { Submitted, View } from './judge.ts'
import { stream, type Scenario } from './program.ts'

/** A request without an answer for so long is given up. */
const answerMs = 8000
/** An event stream that is silent for so long is opened anew elsewhere. */
const silenceMs = 6000

export interface DriverOptions {
  fleet: Fleet
  seed: number
  ledger: string
  /** Aborted when there is no more time. */
  over: AbortSignal
  /** Resolves when the faults are over. */
  calm: Promise<void>
}

export class Driver {
  readonly asked: Asked[] = []
  /** Answers that nobody should get, and bodies that do not follow the API's own document. */
  readonly answers: string[] = []
  readonly #options: DriverOptions

  constructor(options: DriverOptions) {
    this.#options = options
  }

  /** Reads the documents against which answers are checked, while everything is up. */
  async prepare(): Promise<void> {
    for (const { process } of this.#options.fleet.apis) await validatorOf(process.ready)
  }

  /**
   * Runs a scenario until its session has ended, or there is no more time. Whatever it learns stands in `submitted` at
   * once.
   */
  async drive(submitted: Submitted): Promise<void> {
    await this.#drive(submitted).catch((error: Error) => void this.answers.push(error.message))
  }

  async #drive(submitted: Submitted): Promise<void> {
    const { scenario } = submitted
    const draw = stream(this.#options.seed, `driver ${scenario.key}`, 0)
    const id = await this.#submit(scenario, submitted, draw)
    if (id === undefined) return
    await Promise.all([this.#follow(id, submitted, draw), this.#control(scenario, id, draw)])
    submitted.first = await this.view(id, draw)
  }

  body({ kind, program, key, tags = [key], priority, deadlineS, concurrency }: Scenario & { tags?: string[] }): Record<string, unknown> {
    const input = { key, program, ledger: this.#options.ledger }
    const more = { ...(deadlineS !== null && { deadlineS }), ...(concurrency && { concurrency }) }
    return { workflow: kind === 'undone' ? 'undoable' : 'program', input, tags, priority, ...more }
  }

  // ---- submissions ----

  async #submit(scenario: Scenario, submitted: Submitted, draw: () => number): Promise<string | undefined> {
    const send = (attempt: () => Promise<Answer | undefined>): Promise<void> =>
      attempt().then((answer) => {
        if (answer) submitted.ids.push((answer.json as View).id)
      })
    const once = (): Promise<Answer | undefined> => this.send(scenario, draw)
    const surely = (): Promise<Answer | undefined> => this.surely(once)
    if (scenario.submit === 'surely') await send(surely)
    if (scenario.submit === 'twice') await Promise.all([send(surely), send(surely)])
    if (scenario.submit === 'once') {
      await send(once)
      if (submitted.ids.length === 0) {
        // Nobody knows. Once it is quiet the list must show it whole or not at all, and the key must say the same.
        await this.#options.calm
        const list = await this.surely(() => this.ask('GET', `/v1/sessions?tag=${scenario.key}`, draw))
        submitted.wasThere = { id: (list?.json as { sessions: View[] } | undefined)?.sessions[0]?.id ?? null }
        await send(surely)
      }
    }
    return submitted.ids[0]
  }

  /** Sends the submission; undefined when nobody knows whether it was accepted. */
  async send(scenario: Scenario, draw: () => number): Promise<Answer | undefined> {
    const answer = await this.ask('POST', '/v1/sessions', draw, {
      body: this.body(scenario),
      headers: { 'Idempotency-Key': scenario.key },
    })
    return answer && this.#expect(answer, `submission of ${scenario.key}`, 200, 202)
  }

  // ---- what is asked of a session that runs ----

  async #control({ key, signals, pauses, moves, stops, cancelAtMs, cancelBy }: Scenario, id: string, draw: () => number): Promise<void> {
    const signal = async ({ path, atMs, times, by }: Scenario['signals'][number]): Promise<void> => {
      await this.#sleep(atMs)
      if (by === 'approval') return this.#approve(id, path, times, draw)
      const body = { type: 'go', data: { path }, eventId: `go:${path}` }
      // A program that has failed hears nothing more.
      for (let i = 0; i < times; i++)
        await this.surely(() => this.ask('POST', `/v1/sessions/${id}/signal`, draw, { body }), `signal to ${id}`, 200, 409)
    }
    const pause = async (): Promise<void> => {
      for (const { atMs, holdMs } of pauses) {
        await this.#sleep(atMs)
        await this.#verb(id, 'pause', draw)
        await this.#sleep(holdMs)
        await this.#verb(id, 'resume', draw)
      }
    }
    const cancel = async (): Promise<void> => {
      if (cancelAtMs === null) return
      await this.#sleep(cancelAtMs)
      if (cancelBy === 'verb') return this.#verb(id, 'cancel', draw)
      // Its tag is its own; asked for twice, the second action finds what the first has left.
      const body = { action: 'cancel', filter: { tag: key } }
      await this.surely(() => this.ask('POST', '/v1/bulk', draw, { body }), `cancel of all with the tag ${key}`, 202)
    }
    const move = async ({ atMs, how }: Scenario['moves'][number]): Promise<void> => {
      await this.#sleep(atMs)
      if (typeof how === 'string') return this.#verb(id, how, draw)
      const path = `/v1/sessions/${id}/priority`
      await this.surely(() => this.ask('POST', path, draw, { body: { priority: how } }), `priority of ${id}`, 200, 409)
    }
    const stop = async ({ atMs, holdMs }: Scenario['stops'][number]): Promise<void> => {
      await this.#sleep(atMs)
      await this.#queue('pause', draw)
      await this.#sleep(holdMs)
      await this.#queue('resume', draw)
    }
    await Promise.all([...signals.map(signal), pause(), ...moves.map(move), ...stops.map(stop), cancel()])
  }

  /** Sends the signal by the URL of an approval, as a person without a key would; it counts once, however often. */
  async #approve(id: string, path: string, times: number, draw: () => number): Promise<void> {
    const grant = { signals: ['go'], expiresInS: 3600 }
    const granted = await this.surely(
      () => this.ask('POST', `/v1/sessions/${id}/approvals`, draw, { body: grant }),
      `approval of ${id}`,
      200,
      409,
    )
    const { url } = (granted?.json ?? {}) as { url?: string }
    if (url === undefined) return
    const body = { signal: 'go', data: { path } }
    for (let i = 0; i < times; i++) await this.surely(() => this.ask('POST', url, draw, { body }), `answer to ${id}`, 200, 409, 410)
  }

  async #queue(verb: 'pause' | 'resume', draw: () => number): Promise<void> {
    await this.surely(() => this.ask('POST', `/v1/queue/${verb}`, draw, { body: {} }), `${verb} of the queue`, 200)
  }

  async #verb(id: string, verb: string, draw: () => number): Promise<void> {
    await this.surely(() => this.ask('POST', `/v1/sessions/${id}/${verb}`, draw), `${verb} of ${id}`, 200, 409)
  }

  async view(id: string, draw: () => number): Promise<View | null> {
    const answer = await this.surely(() => this.ask('GET', `/v1/sessions/${id}`, draw), `GET ${id}`, 200)
    const view = answer?.json as View | undefined
    return view && ended.has(view.status) ? view : null
  }

  /** Every session there is, newest first. @throws Error when there is no more time */
  async list(draw: () => number): Promise<View[]> {
    const all: View[] = []
    for (let cursor: string | null = ''; cursor !== null;) {
      const at: string = cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`
      const page = await this.surely(() => this.ask('GET', `/v1/sessions?limit=200${at}`, draw), 'the list', 200)
      if (!page) throw new Error('the list of sessions could not be read')
      const { sessions, next } = page.json as { sessions: View[]; next: string | null }
      all.push(...sessions)
      cursor = next
    }
    return all
  }

  // ---- events ----

  /**
   * Follows the session to its end, over as many connections as it takes: each goes on after the last entry that was
   * seen.
   */
  async #follow(id: string, submitted: Submitted, draw: () => number): Promise<void> {
    const { over } = this.#options
    while (!over.aborted) {
      const isOver = await this.#stream(id, submitted, draw)
      if (isOver) return
      await this.#sleep(100 + draw() * 200)
    }
  }

  async #stream(id: string, submitted: Submitted, draw: () => number): Promise<boolean> {
    const { over } = this.#options
    const api = this.choose(draw)
    const asked = this.#note(api.process.name)
    const silence = new AbortController()
    const hush = setTimeout(() => silence.abort(), silenceMs)
    const after = submitted.streamed.at(-1)?.id ?? 0
    let isOver = false
    try {
      const headers: Record<string, string> = after > 0 ? { 'Last-Event-ID': String(after) } : {}
      const client = this.#options.fleet.farm.clientOf(api.process)
      for await (const event of client.events(`/v1/sessions/${id}/events`, { headers, signal: AbortSignal.any([over, silence.signal]) })) {
        hush.refresh()
        if (event.id === undefined) continue
        submitted.streamed.push({ id: Number(event.id), type: event.event })
        isOver = ended.has(event.event.replace('session.', '') as View['status'])
      }
    } catch (error) {
      asked.wasCut = true
      if (!isCut(error) && !/→ 503 /.test((error as Error).message)) this.answers.push(`events of ${id}: ${(error as Error).message}`)
    } finally {
      clearTimeout(hush)
      asked.to = Date.now()
    }
    return isOver
  }

  // ---- requests ----

  /** Some API that is there, as far as one knows. */
  choose(draw: () => number): Fleet['apis'][number] {
    const { apis } = this.#options.fleet
    const up = apis.filter(({ isUp }) => isUp)
    const some = up.length > 0 ? up : apis
    return some[Math.floor(draw() * some.length)] as Fleet['apis'][number]
  }

  #note(api: string): Asked {
    const asked: Asked = { api, from: Date.now(), to: Infinity, wasCut: false }
    this.asked.push(asked)
    return asked
  }

  /** One request to some API; undefined when it was cut, took too long, or was answered with 503. */
  async ask(
    method: string,
    path: string,
    draw: () => number,
    options: SendOptions = {},
    api = this.choose(draw),
  ): Promise<Answer | undefined> {
    const asked = this.#note(api.process.name)
    const signal = AbortSignal.any([this.#options.over, AbortSignal.timeout(answerMs)])
    try {
      const answer = await this.#options.fleet.farm.clientOf(api.process).request(method, path, { ...options, signal })
      return answer.status === 503 ? undefined : answer
    } catch (error) {
      asked.wasCut = true
      if (!isCut(error)) this.answers.push((error as Error).message)
      return undefined
    } finally {
      asked.to = Date.now()
    }
  }

  /** @throws Error when nobody should get such an answer. */
  #expect(answer: Answer, what: string, ...statuses: number[]): Answer {
    if (statuses.includes(answer.status)) return answer
    const { requestId = '' } = (answer.json ?? {}) as { requestId?: string }
    const logged = this.#options.fleet.apis.map(({ process }) => (requestId === '' ? '' : process.wordsOf(requestId))).join('')
    throw new Error(`${what} was answered with ${answer.status} ${answer.text.slice(0, 500)} ${logged.slice(0, 2000)}`)
  }

  /** Asks until there is an answer, or no more time. */
  async surely(ask: () => Promise<Answer | undefined>, what = '', ...statuses: number[]): Promise<Answer | undefined> {
    while (!this.#options.over.aborted) {
      const answer = await ask()
      if (answer) return statuses.length === 0 ? answer : this.#expect(answer, what, ...statuses)
      await this.#sleep(150)
    }
    return undefined
  }

  async #sleep(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.#options.over }).catch(() => undefined)
  }
}

/** The connection broke, or was given up: nobody answered. */
function isCut(error: unknown): boolean {
  const { code, name } = error as NodeJS.ErrnoException
  return code !== undefined || name === 'AbortError' || name === 'TimeoutError'
}
