/**
 * What clients ask for beside the programs: forks of pictures from a state of theirs, batches of pictures, schedules.
 * Each is asked for until it was accepted, under one key; what comes of it is judged with all other sessions.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { picture } from '../../support/program.ts'
import type { Driver } from './driver.ts'
import type { Chore, View } from './judge.ts'
import { pictureSeeds, stream } from './program.ts'

/** Between two of them, ms; and how many schedules there are at most, each of which goes on to the end. */
const gapMs = 5000
const mostSchedules = 2

export interface ChoresOptions {
  driver: Driver
  seed: number
  over: AbortSignal
}

export class Chores {
  readonly done: Chore[] = []
  readonly #options: ChoresOptions
  /** Pictures that were drawn before anything was broken, with the entries that they can be forked from. */
  #pictures: { id: string; entries: number[] }[] = []

  constructor(options: ChoresOptions) {
    this.#options = options
  }

  /** Looks at the pictures that there are, while everything is up. */
  async prepare(): Promise<void> {
    const { driver, seed } = this.#options
    const draw = stream(seed, 'chores', 0)
    for (const { id } of await driver.list(draw)) {
      const answer = await driver.surely(() => driver.ask('GET', `/v1/sessions/${id}/states`, draw), `states of ${id}`, 200)
      const { states } = (answer as { json: unknown }).json as { states: { entry: number; open: string[] }[] }
      // From its end nothing goes on.
      this.#pictures.push({ id, entries: states.filter(({ open }) => open.length > 0).map(({ entry }) => entry) })
    }
  }

  /** One after another until `ms` are over. */
  async run(ms: number): Promise<void> {
    const { driver, seed, over } = this.#options
    const until = performance.now() + ms
    for (let i = 0; performance.now() < until && !over.aborted; i++) {
      const draw = stream(seed, 'chore', i)
      const acts = [() => this.#fork(i, draw), () => this.#batch(i, draw), () => this.#schedule(i, draw)]
      await (acts[i % acts.length] ?? acts[0])?.().catch((error: Error) => void driver.answers.push(error.message))
      await delay(gapMs, undefined, { signal: over }).catch(() => undefined)
    }
  }

  async #fork(i: number, draw: () => number): Promise<void> {
    const { driver } = this.#options
    const of = this.#pictures[Math.floor(draw() * this.#pictures.length)]
    const entry = of?.entries[Math.floor(draw() * of.entries.length)]
    if (!of || entry === undefined) return
    const body = { from: { entry }, ...(draw() < 0.5 && { input: { seed: Math.floor(draw() * pictureSeeds) } }) }
    const id = await this.#accepted(`fork of ${of.id}`, `/v1/sessions/${of.id}/fork`, body, i, draw)
    if (id !== undefined) this.done.push({ is: 'fork', id, of: of.id })
    else if (!this.#options.over.aborted) driver.answers.push(`a fork of ${of.id} was never accepted`)
  }

  async #batch(i: number, draw: () => number): Promise<void> {
    const seeds = Array.from({ length: pictureSeeds }, (_, n) => n)
    const { seed: _, ...common } = picture(0)
    const input = { input: common, seeds: { from: 0, count: pictureSeeds }, window: 1 + Math.floor(draw() * pictureSeeds) }
    const id = await this.#accepted('batch', '/v1/sessions', { workflow: 'batch', input }, i, draw)
    if (id !== undefined) this.done.push({ is: 'batch', id, seeds })
  }

  async #schedule(i: number, draw: () => number): Promise<void> {
    const { driver } = this.#options
    if (i / 3 >= mostSchedules) return
    const overlap = (['skip', 'queue', 'allow'] as const)[Math.floor(draw() * 3)]
    const session = { workflow: 'image-generation', input: picture(Math.floor(draw() * pictureSeeds)) }
    // Sent again without a key it may be made twice: both are as good.
    const body = { name: `chore ${i}`, everyS: 15, overlap, catchUpS: 10, session }
    await driver.surely(() => driver.ask('POST', '/v1/schedules', draw, { body }), 'a schedule', 201)
  }

  /** Ends the schedules, and notes what they have started. */
  async end(): Promise<void> {
    const { driver, seed } = this.#options
    const draw = stream(seed, 'chores', 1)
    const answer = await driver.surely(() => driver.ask('GET', '/v1/schedules', draw), 'the schedules', 200)
    const { schedules } = (answer as { json: unknown }).json as { schedules: { id: string }[] }
    for (const { id } of schedules) {
      await driver.surely(() => driver.ask('POST', `/v1/schedules/${id}/pause`, draw), `pause of schedule ${id}`, 200)
      const seen = await driver.surely(() => driver.ask('GET', `/v1/schedules/${id}`, draw), `schedule ${id}`, 200)
      const { occurrences } = (seen as { json: unknown }).json as { occurrences: { session: string | null }[] }
      this.done.push({ is: 'schedule', id, started: occurrences.flatMap(({ session }) => session ?? []) })
    }
  }

  /** The id of the session that the request has made; undefined when there was no more time. */
  async #accepted(what: string, path: string, body: object, i: number, draw: () => number): Promise<string | undefined> {
    const { driver, seed } = this.#options
    const headers = { 'Idempotency-Key': `c${seed}-${i}` }
    const answer = await driver.surely(() => driver.ask('POST', path, draw, { body, headers }), what, 200, 202)
    return (answer?.json as View | undefined)?.id
  }
}
