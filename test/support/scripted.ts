/** Sessions of the workflow `script`, begun over HTTP. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { root } from '../../src/config.ts'
import type { Session } from '../../src/client/index.ts'
import type { Farm } from './farm.ts'
import { eventually } from './wait.ts'
import { runsIn, type Line } from './script.ts'

/** For farms that run such sessions. */
export const module = pathToFileURL(join(root, 'test/support/script.ts')).href

export interface BeginOptions {
  /** A line that fails is passed over. */
  ignores?: boolean
  /** What a submission may say besides. */
  more?: Record<string, unknown>
  workflow?: string
  /** Through another API than the first. */
  api?: Farm['apis'][number]
}

export class Scripted {
  readonly id: string
  readonly #farm: Farm
  readonly #folder: string

  private constructor(farm: Farm, id: string, folder: string) {
    this.#farm = farm
    this.id = id
    this.#folder = folder
  }

  /** Steps that hold do so until they are released. */
  static async begin(farm: Farm, lines: Line[], options: BeginOptions = {}): Promise<Scripted> {
    const { ignores = false, more = {}, workflow = 'script', api } = options
    const folder = mkdtempSync(join(farm.folder, 'script-'))
    for (const name of heldIn(lines)) writeFileSync(join(folder, `${name}.hold`), '')
    const client = api ? farm.clientOf(api) : farm.client
    const answer = await client.post('/v1/sessions', { workflow, input: { folder, lines, ignores }, ...more })
    if (answer.status !== 202) throw new Error(`submit → ${answer.status} ${answer.text}`)
    return new Scripted(farm, (answer.json as Session).id, folder)
  }

  /** How often each step has run so far. */
  get runs(): Record<string, number> {
    return Object.fromEntries(Object.entries(runsIn(this.#folder)).map(([name, pids]) => [name, pids.length]))
  }

  /** The workers that have run a step, by pid, in order. */
  pids(name: string): number[] {
    return runsIn(this.#folder)[name] ?? []
  }

  /** Waits for the n-th run of a step; the pid of the worker it is in. */
  async ran(name: string, n = 1): Promise<number> {
    return eventually(`run ${n} of ${name} in ${this.id}`, () => Promise.resolve(this.pids(name)[n - 1]))
  }

  release(name: string): void {
    rmSync(join(this.#folder, `${name}.hold`), { force: true })
  }

  async signal(data: unknown, eventId: string = crypto.randomUUID()): Promise<number> {
    return (await this.#farm.client.post(`/v1/sessions/${this.id}/signal`, { type: 'go', data, eventId })).status
  }

  /** What it said, once it has succeeded. */
  async said(ms?: number): Promise<unknown[]> {
    const { output } = await this.#farm.until(this.id, 'succeeded', ms)
    return (output as unknown as { said: unknown[] }).said
  }

  async children(): Promise<Session[]> {
    return (await this.#farm.client.get(`/v1/sessions?parent=${this.id}`)).json.sessions as Session[]
  }

  /** The child session, once it is there. */
  async child(): Promise<Session> {
    return eventually(`a child of ${this.id}`, async () => (await this.children())[0])
  }
}

const heldIn = (lines: Line[]): string[] =>
  lines.flatMap((line) => ('child' in line ? heldIn(line.child) : 'say' in line && line.holds ? [line.say] : []))
