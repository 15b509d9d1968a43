/** What a test looks at past the API: the farm's Redis and its artifacts, and what must not be left over in them. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { keys } from '../../src/keys.ts'
import { connect, type Redis } from '../../src/redis.ts'
import type { Document } from '../../src/engine/transition.ts'
import { ended, type SessionEvent, type Status } from '../../src/engine/session.ts'
import { eventually, patienceMs } from './wait.ts'

export interface InspectorOptions {
  redisUrl: string
  shards: number
  /** Folder of the artifacts. */
  artifacts: string
}

export class Inspector {
  /** A connection of the test's own, to look with. */
  readonly eye: Redis
  readonly shards: number
  readonly artifacts: string

  constructor({ redisUrl, shards, artifacts }: InspectorOptions) {
    this.eye = connect(redisUrl, { patience: 'wait' })
    this.shards = shards
    this.artifacts = artifacts
  }

  /** Members of an index or due list, of all shards. */
  async members(key: (shard: number) => string): Promise<string[]> {
    const all = await Promise.all(Array.from({ length: this.shards }, (_, shard) => this.eye.zrange(key(shard), '0', '-1')))
    return all.flat()
  }

  async history(id: string): Promise<SessionEvent[]> {
    const texts = await this.eye.lrange(keys.history(id), 0, -1)
    return texts.map((text) => JSON.parse(text) as SessionEvent)
  }

  /** Waits for an event, and for the n-th of its kind. */
  async event(id: string, type: SessionEvent['type'], step?: string, n = 1, ms = patienceMs): Promise<SessionEvent> {
    const look = async (): Promise<SessionEvent | undefined> =>
      (await this.history(id)).filter((event) => event.type === type && (step === undefined || event.step === step))[n - 1]
    return eventually(`${type} ${step ?? ''} of ${id}`, look, ms)
  }

  /** What must never be there, and what must not be there when every session has ended. Empty when all is well. */
  async leftovers(): Promise<string[]> {
    const found: string[] = []
    for (const id of await this.members((shard) => keys.index(shard, 'all'))) found.push(...(await this.#sessionLeftovers(id)))
    for (const due of ['leases', 'timers', 'outbox'] as const)
      found.push(...(await this.members(keys[due])).map((member) => `${due}: ${member}`))
    for (const key of await this.eye.keys('darkroom:{s[0-9]*}:line*')) found.push(`${key}: somebody waits in line`)
    for (const key of await this.eye.keys('darkroom:{s[0-9]*}:slots'))
      found.push(...(await this.eye.hkeys(key)).map((step) => `${key}: ${step} has a slot`))
    found.push(...(await this.members(keys.dueWebhooks)).map((webhook) => `webhook ${webhook} is still to be told something`))
    for (const key of await this.eye.keys(keys.reserved(0).replace('s0', 's[0-9]*')))
      if (Number(await this.eye.get(key)) !== 0) found.push(`${key}: ${await this.eye.get(key)} bytes for sessions that have ended`)
    // On a cluster: commands that it refused because their keys lie in different slots.
    found.push(...((await this.eye.info('errorstats')).match(/errorstat_CROSSSLOT\S+/g) ?? []))
    for (const kind of ['step', 'inbox', 'scratch']) found.push(...(await this.eye.keys(`darkroom:{s[0-9]*}:${kind}:*`)))
    return found
  }

  /**
   * Reservations of workers that have ended by themselves: such a one gives them back; one that was killed leaves them
   * to their time.
   */
  async reservationsOf(workers: readonly (string | undefined)[]): Promise<string[]> {
    const found: string[] = []
    for (const key of await this.eye.keys(keys.reservations('*'))) {
      for (const [owner, text] of Object.entries(await this.eye.hgetall(key))) {
        if (workers.includes((JSON.parse(text) as { worker: string }).worker)) found.push(`${key}: ${owner} has not given back ${text}`)
      }
    }
    return found
  }

  async #sessionLeftovers(id: string): Promise<string[]> {
    const found: string[] = []
    const session = await this.eye.hgetall(keys.session(id))
    const open = Object.keys(session)
      .filter((field) => field.startsWith('open:') && field !== 'open:deadline')
      .map((field) => field.slice('open:'.length))
      .toSorted()
    const hasEnded = ended.has(session['status'] as Status)
    const document = JSON.parse(session['snapshot'] ?? '') as Document
    // A cancel or a deadline ends a session from outside its machine: the snapshot then still shows what was open.
    const children = hasEnded
      ? []
      : Object.values(document.effects)
          .map((effect) => effect.suffix)
          .toSorted()
    if (open.join() !== children.join())
      found.push(`session ${id}: open effects ${open.join()}, children of its snapshot ${children.join()}`)
    if (!hasEnded) found.push(`session ${id} is ${session['status']}`)
    const history = await this.history(id)
    const ends = history.filter((event) => ended.has(event.type.replace('session.', '') as Status))
    if (ends.length !== (hasEnded ? 1 : 0)) found.push(`session ${id} has ${ends.length} ends`)
    if (hasEnded && history.at(-1) !== ends[0]) found.push(`session ${id} goes on after its end: ${history.at(-1)?.type}`)
    const completed = history.filter((event) => event.type === 'step.completed').map((event) => event.key)
    for (const key of new Set(completed.filter((key, i) => completed.indexOf(key) !== i)))
      found.push(`step ${key} has more than one result`)
    for (const { sha256 } of (JSON.parse(session['output'] ?? '{}') as { images?: { sha256: string }[] }).images ?? []) {
      if (!existsSync(join(this.artifacts, sha256.slice(0, 2), sha256)))
        found.push(`picture ${sha256} of session ${id} is not in the store`)
      if (!(await this.eye.sismember(keys.references(id), sha256))) found.push(`session ${id} does not name its picture ${sha256}`)
    }
    return found
  }
}
