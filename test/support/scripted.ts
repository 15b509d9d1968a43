/** Programs that go line by line, and their sessions, begun over HTTP. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { root } from '../../src/config.ts'
import type { Session } from '../../src/client/index.ts'
import type { Farm } from './farm.ts'
import { holdFile, readLedger, step, type Node } from './program.ts'
import { eventually } from './wait.ts'

/** For farms that run programs. */
export const module = pathToFileURL(join(root, 'test/support/program.ts')).href

/** `fails`: so many runs fail, and are tried again as long as attempts are left. Any node may be a line, too. */
export type Line =
  | { say: string; holds?: boolean; fails?: number; blocks?: { ms: number; on: string } }
  | { waitMs: number }
  | { signal: true }
  | { child: Line[] }
  | Node

const nodeOf = (line: Line): Node => {
  if ('do' in line) return line
  if ('waitMs' in line) return { do: 'timer', ms: line.waitMs }
  if ('signal' in line) return { do: 'signal' }
  if ('child' in line) return { do: 'child', body: script(line.child) }
  const { say, fails = 0, ...more } = line
  return step({ name: say, flaky: { how: 'transient', times: fails }, ...more })
}

/** A line that fails is passed over when the script ignores that. */
export const script = (lines: Line[], ignores = false): Node => ({
  do: 'sequence',
  of: lines.map(nodeOf).map((node) => (ignores ? { do: 'try', body: node } : node)),
})

/** The input of a session that runs a program, with a folder of its own in the farm's ledger. */
export const inputOf = (farm: Farm, program: Node): { ledger: string; key: string; program: Node } => ({
  ledger: join(farm.folder, 'ledger'),
  key: randomUUID(),
  program,
})

/** The runs of each step in a session's folder: the pids they ran in, in their order. */
export const runsIn = (folder: string): Record<string, number[]> =>
  Object.fromEntries(
    [...readLedger(folder)].map(([name, lines]) => [name, lines.filter(({ is }) => is === 'started').map(({ pid }) => pid)]),
  )

export interface BeginOptions {
  /** A line that fails is passed over. */
  ignores?: boolean
  /** What a submission may say besides. */
  more?: Record<string, unknown>
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
    const { ignores = false, more = {}, api } = options
    const input = inputOf(farm, script(lines, ignores))
    const folder = join(input.ledger, input.key)
    mkdirSync(folder, { recursive: true })
    for (const name of heldIn(lines)) writeFileSync(holdFile(folder, name), '')
    const client = api ? farm.clientOf(api) : farm.client
    const answer = await client.post('/v1/sessions', { workflow: 'program', input, ...more })
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
    rmSync(holdFile(this.#folder, name), { force: true })
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
