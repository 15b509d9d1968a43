/** What Redis knows of sessions and their steps: reads alone, none of them a search. */
import { tellTime } from '../clock.ts'
import { invalidFields, unknownSession, type WireError } from '../errors.ts'
import { keys, sessionIdPattern, shardOf, splitStepKey, undoSessionId } from '../keys.ts'
import { runScript, translated, translatedAll, type Redis } from '../redis.ts'
import {
  ended,
  type ForkedFrom,
  type Progress,
  type Session,
  type SessionEvent,
  type SessionFilter,
  type SessionPage,
  type Status,
} from './session.ts'
import type { Document } from './transition.ts'
import { groupOf } from './turns.ts'
import { useOf } from './usage.ts'

/** A step's record while it is open. */
export interface StepRecord {
  name: string
  invoke: string
  lane: string
  priority: number
  state: 'open' | 'leased' | 'delivered'
  dispatch: number
  notBefore: number
  queue: string
  placedAt: number
  /** Worker on which its last attempt failed or was lost. */
  avoid: string | null
  /** The attempt that holds it, or the last one; '' before the first. */
  attemptId: string
  /** Worker of that attempt. */
  worker: string
  leaseUntil: number
}

/** Where a session stands, as a script or a read returned it. */
export interface State {
  version: string
  snapshot: string
  workflow: string
}

/** Entries of an index that are looked at for one page of a shard: about what reading fifty records costs. */
const lookedAt = 500
/** How often more is read where the records themselves did not match. */
const maxTurns = 4

/** Where a session stands in a list. */
type Place = Pick<Session, 'createdAt' | 'id'>
export const newestFirst = (a: Place, b: Place): number => b.createdAt - a.createdAt || (a.id === b.id ? 0 : a.id < b.id ? 1 : -1)

export class Reads {
  readonly #redis: Redis
  readonly #shards: number

  constructor(redis: Redis, shards: number) {
    this.#redis = redis
    this.#shards = shards
  }

  /** The time of a shard, by which what is due in it is reckoned, ms. */
  async now(shard: number): Promise<number> {
    return (await tellTime(this.#redis, keys.clock(shard))).now
  }

  /**
   * Asks for a write that changes nothing. Redis takes it only while all that it has answered before is in its
   * append-only file; otherwise it refuses (MISCONF), as a replica does (READONLY).
   * @throws DarkroomError `redis.unavailable`
   */
  async confirm(): Promise<void> {
    await translated(this.#redis.del(keys.nothing()))
  }

  // ---- one session ----

  async get(id: string): Promise<Session | undefined> {
    if (!sessionIdPattern.test(id)) return undefined
    const record = await translated(this.#redis.hgetall(keys.session(id)))
    return record['status'] === undefined ? undefined : toSession(id, record)
  }

  /** @throws DarkroomError `session.unknown` */
  async mustGet(id: string): Promise<Session> {
    const session = await this.get(id)
    if (!session) throw unknownSession(id)
    return session
  }

  async inboxHead(id: string): Promise<string | null> {
    return translated(this.#redis.lindex(keys.inbox(id), 0))
  }

  async history(id: string, after: number, limit: number): Promise<{ id: number; event: SessionEvent }[]> {
    const texts = await translated(this.#redis.lrange(keys.history(id), after, after + limit - 1))
    return texts.map((text, i) => ({ id: after + i + 1, event: JSON.parse(text) as SessionEvent }))
  }

  async state(id: string): Promise<State | undefined> {
    const { version, snapshot, workflow } = await this.fields(id, 'version', 'snapshot', 'workflow')
    return version === null || snapshot === null || workflow === null ? undefined : { version, snapshot, workflow }
  }

  async step(stepKey: string): Promise<StepRecord | undefined> {
    const record = await translated(this.#redis.hgetall(keys.step(stepKey)))
    if (!record['name']) return undefined
    return {
      name: record['name'],
      invoke: record['invoke'] ?? '',
      lane: record['lane'] ?? '',
      priority: Number(record['priority']),
      state: record['state'] as StepRecord['state'],
      dispatch: Number(record['dispatch']),
      notBefore: Number(record['notBefore'] ?? 0),
      queue: record['queue'] ?? '',
      placedAt: Number(record['placedAt'] ?? 0),
      avoid: record['avoid'] ?? null,
      attemptId: record['attemptId'] ?? '',
      worker: record['worker'] ?? '',
      leaseUntil: Number(record['leaseUntil'] ?? 0),
    }
  }

  /** Kept checkpoints of an open step as they were recorded, newest first. */
  async checkpoints(stepKey: string): Promise<string[]> {
    return (await translated(this.#redis.hmget(keys.step(stepKey), 'checkpoint', 'checkpointBefore'))).filter((text) => text !== null)
  }

  async fields<const Names extends readonly string[]>(id: string, ...names: Names): Promise<Record<Names[number], string | null>> {
    const values = await translated(this.#redis.hmget(keys.session(id), ...names))
    return Object.fromEntries(names.map((name, i) => [name, values[i] ?? null])) as Record<Names[number], string | null>
  }

  /** Artifacts that a session names: its results, and the pictures of its input. */
  references(id: string): Promise<string[]> {
    return translated(this.#redis.smembers(keys.references(id)))
  }

  /** Children of a session that are there, `max` at most. */
  async children(id: string, max: number): Promise<string[]> {
    const found: string[] = []
    for (let shard = 0; shard < this.#shards && found.length < max; shard++)
      found.push(...(await translated(this.#redis.zrange(keys.index(shard, 'parent', id), '0', String(max - found.length - 1)))))
    return found
  }

  // ---- many ----

  /**
   * A page, newest first. It costs about the same whatever there is besides: where two large indexes share little, it
   * ends early, and `next` goes on from there. Such a page has fewer sessions than asked for, or none.
   */
  async list(filter: SessionFilter): Promise<SessionPage> {
    const perShard = await Promise.all(Array.from({ length: this.#shards }, (_, shard) => this.#listShard(shard, filter)))
    const all = perShard.flatMap(({ found }) => found).toSorted(newestFirst)
    // What lies behind the first place where a shard stopped is not known to be next.
    const [stop] = perShard.flatMap(({ stoppedAt }) => stoppedAt ?? []).toSorted(newestFirst)
    const known = stop ? all.filter((session) => newestFirst(session, stop) <= 0) : all
    const page = known.slice(0, filter.limit)
    const last = known.length > filter.limit ? page.at(-1) : stop
    return { sessions: page, next: last ? Buffer.from(`${last.createdAt}:${last.id}`).toString('base64url') : null }
  }

  async #listShard(shard: number, filter: SessionFilter): Promise<{ found: Session[]; stoppedAt: Place | undefined }> {
    const [index = '', ...others] = this.#indexesOf(shard, filter)
    let { at, afterId = '' } = readCursor(filter.cursor)
    const found: Session[] = []
    for (let turn = 0; ; turn++) {
      const wanted = filter.limit + 1 - found.length
      const [is, score, last, ...ids] = await runScript(this.#redis, 'listSessions', index, [at, afterId, wanted, lookedAt, ...others])
      found.push(...(await this.#records(ids.map(String))).filter((session) => matches(session, filter)))
      if (is === 'all') return { found, stoppedAt: undefined }
      ;[at, afterId] = [String(score), String(last)]
      const isFull = found.length > filter.limit
      // Of what the indexes gave, only a version of a workflow is told by the records themselves.
      if (isFull || ids.length < wanted || turn === maxTurns) return { found, stoppedAt: { createdAt: Number(at), id: afterId } }
    }
  }

  /** Ids of the sessions that a filter finds, of one shard after another, in pages, each newest first. */
  async *ids(filter: Omit<SessionFilter, 'limit' | 'cursor'>): AsyncGenerator<string[]> {
    for (let shard = 0; shard < this.#shards; shard++) {
      const [index = '', ...others] = this.#indexesOf(shard, filter)
      for (let [at, afterId, isMore] = ['+inf', '', true]; isMore;) {
        const [is, score, last, ...found] = await runScript(this.#redis, 'listSessions', index, [
          at,
          afterId,
          lookedAt,
          lookedAt,
          ...others,
        ])
        ;[at, afterId, isMore] = [String(score), String(last), is !== 'all']
        const ids = found.map(String)
        yield filter.workflow?.includes('@') ? (await this.#records(ids)).filter((each) => matches(each, filter)).map(({ id }) => id) : ids
      }
    }
  }

  /** The indexes in all of which a session must stand; that of all sessions when the filter says nothing. */
  #indexesOf(shard: number, filter: Omit<SessionFilter, 'limit' | 'cursor'>): string[] {
    const asked = [
      filter.status && keys.index(shard, 'status', filter.status),
      filter.workflow && keys.index(shard, 'workflow', filter.workflow.split('@')[0]),
      filter.tag && keys.index(shard, 'tag', filter.tag),
      filter.parent && keys.index(shard, 'parent', filter.parent),
      filter.keyId && keys.index(shard, 'key', filter.keyId),
    ].filter((index): index is string => Boolean(index))
    return asked.length > 0 ? asked : [keys.index(shard, 'all')]
  }

  /** The sessions of these ids that are there. */
  async #records(ids: readonly string[]): Promise<Session[]> {
    if (ids.length === 0) return []
    const records = await translatedAll(ids.reduce((pipeline, id) => pipeline.hgetall(keys.session(id)), this.#redis.pipeline()))
    return ids.flatMap((id, i) => {
      const record = records[i] as Record<string, string> | undefined
      return record?.['status'] ? [toSession(id, record)] : []
    })
  }

  /** Those of these sessions that the API key has submitted. */
  async submittedBy(keyId: string, ids: readonly string[]): Promise<ReadonlySet<string>> {
    const owners = await Promise.all(ids.map((id) => this.fields(id, 'keyId')))
    return new Set(ids.filter((_, i) => owners[i]?.keyId === keyId))
  }

  /** How many open sessions of a count are in other shards than this one. */
  async openElsewhere(counted: string, shard: number): Promise<number> {
    const others = Array.from({ length: this.#shards }, (_, i) => i).filter((i) => i !== shard)
    const counts = await Promise.all(others.map((i) => translated(this.#redis.zcard(keys.index(i, 'open', counted)))))
    return counts.reduce((sum, count) => sum + count, 0)
  }

  /** An open session's API key, and how many open ones of its count came before it; undefined without a key. */
  async turn(id: string): Promise<{ key: string; before: number } | undefined> {
    const { counted, keyId } = await this.fields(id, 'counted', 'keyId')
    if (counted === null || keyId === null) return undefined
    return { key: keyId, before: (await translated(this.#redis.zrank(keys.index(shardOf(id), 'open', counted), id))) ?? 0 }
  }

  /** The session that an idempotency record stands for, and the hash of the body it was sent with. */
  async known(idempotency: string): Promise<{ created: false; id: string; bodySha256: string } | undefined> {
    const [id, bodySha256] = await translated(this.#redis.hmget(idempotency, 'session', 'body'))
    return id ? { created: false, id, bodySha256: bodySha256 ?? '' } : undefined
  }

  /**
   * Bytes left below 80 % of maxmemory once the open sessions have what they may still need; infinite where there is no
   * limit.
   */
  async memoryLeft(): Promise<number> {
    const shards = Array.from({ length: this.#shards }, (_, shard) => keys.reserved(shard))
    const [info, ...reserved] = await Promise.all([
      translated(this.#redis.info('memory')),
      ...shards.map((key) => translated(this.#redis.get(key))),
    ])
    const number = (name: string): number => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(info)?.[1] ?? 0)
    const limit = number('maxmemory') || Infinity
    return 0.8 * limit - number('used_memory') - reserved.reduce((sum, bytes) => sum + Number(bytes), 0)
  }

  // ---- artifacts ----

  /** Whether a session names the artifact, as a result or in its input; with a key, one of that key's sessions. */
  async names(sha256: string, keyId: string | null): Promise<boolean> {
    for (let shard = 0; shard < this.#shards; shard++) {
      const ids = await translated(this.#redis.smembers(keys.named(shard, sha256)))
      if (keyId === null ? ids.length > 0 : (await this.submittedBy(keyId, ids)).size > 0) return true
    }
    return false
  }

  /** Whether a session names this artifact now. */
  isNamed(sha256: string): Promise<boolean> {
    return this.names(sha256, null)
  }

  /**
   * Artifacts that sessions name, as results or for their steps, in pages; a session that is there all the while is not
   * left out.
   */
  async *named(): AsyncGenerator<string[]> {
    for (let shard = 0; shard < this.#shards; shard++) {
      for await (const ids of this.members(keys.index(shard, 'all'))) {
        const sets = await translatedAll(
          ids.reduce((pipeline, id) => pipeline.smembers(keys.references(id)).smembers(keys.scratch(id)), this.#redis.pipeline()),
        )
        yield sets.flatMap((members) => members as string[])
      }
    }
  }

  /** Members of an index, in pages; one that is there all the while is not left out when others go meanwhile. */
  async *members(index: string): AsyncGenerator<string[]> {
    let cursor = '0'
    do {
      const [next, found] = await translated(this.#redis.zscan(index, cursor, 'COUNT', '500'))
      cursor = next
      yield found.filter((_, i) => i % 2 === 0)
    } while (cursor !== '0')
  }
}

/** Whether a session is one of those that a filter asks for. */
export function matches(session: Session, filter: Partial<Omit<SessionFilter, 'limit' | 'cursor'>>): boolean {
  return (
    (!filter.status || session.status === filter.status) &&
    (!filter.workflow || session.workflow === filter.workflow || session.workflow.split('@')[0] === filter.workflow) &&
    (!filter.tag || session.tags.includes(filter.tag)) &&
    (!filter.parent || session.parent === filter.parent) &&
    ((filter.keyId ?? null) === null || session.keyId === filter.keyId)
  )
}

/** Whether something is to be undone of it; only of few sessions the state is looked into. */
const isUndone = ({ undoes, status, snapshot }: Record<string, string>): boolean =>
  undoes !== undefined &&
  (status === 'failed' || status === 'cancelled') &&
  (JSON.parse(snapshot ?? '{}') as Partial<Document>).undo !== undefined

/** What a pause leaves of the deadline, in the record. */
const leftOfDeadline = 'left:deadline'

/** A session's record as the session it is. */
export function toSession(id: string, record: Record<string, string>): Session {
  const json = <T>(field: string): T | null => (record[field] === undefined ? null : (JSON.parse(record[field]) as T))
  const number = (field: string): number | null => (record[field] === undefined ? null : Number(record[field]))
  const status = record['status'] as Status
  const progress = json<Progress>('progress')
  return {
    id,
    workflow: record['workflow'] ?? '',
    status,
    waiting: waitingOf(status, record['waiting'], record['parked']),
    input: json<Record<string, unknown>>('input') ?? {},
    output: json<Record<string, unknown>>('output'),
    error: json<WireError>('error'),
    progress: progress && ended.has(status) ? lastOf(progress, status) : progress,
    priority: Number(record['priority'] ?? 5),
    tags: json<string[]>('tags') ?? [],
    keyId: record['keyId'] ?? null,
    device: record['device'] ?? null,
    concurrency: groupOf(record['group'] ?? '-'),
    retryOf: record['retryOf'] ?? null,
    forkOf: json<ForkedFrom>('forkOf'),
    undo: isUndone(record) ? undoSessionId(id) : null,
    webhook: record['webhook'] ?? null,
    parent: record['parent'] === undefined ? null : splitStepKey(record['parent']).sessionId,
    trace: record['trace'] ?? null,
    exactnessKey: record['exactnessKey'] ?? null,
    createdAt: number('createdAt') ?? 0,
    startedAt: number('startedAt'),
    endedAt: number('endedAt'),
    deadlineAt: record[leftOfDeadline] === undefined ? number('deadlineAt') : null,
    deadlineLeftMs: number(leftOfDeadline),
    use: useOf(record),
    version: Number(record['version'] ?? 0),
  }
}

/** What a session waits for, by what its record says. */
export const waitingOf = (status: Status, waiting: string | null | undefined, parked: string | null | undefined): string | null =>
  waiting ?? (status === 'running' ? parked : undefined) ?? null

/** The progress of a session that has ended: nothing of it waits or runs any more. */
function lastOf({ items, fraction, ...progress }: Progress, status: Status): Progress {
  return {
    ...progress,
    fraction: status === 'succeeded' ? 1 : fraction,
    ...(items && { items: { ...items, waiting: 0, running: 0, cancelled: items.total - items.succeeded - items.failed } }),
  }
}

/** Where a page begins: `next` of the page before. @throws DarkroomError `api.invalid` for one that no page gave. */
function readCursor(cursor: string | undefined): { at: string; afterId: string | undefined } {
  if (cursor === undefined) return { at: '+inf', afterId: undefined }
  const [, at, afterId] = /^(\d{1,15}):(.+)$/s.exec(Buffer.from(cursor, 'base64url').toString()) ?? []
  if (at === undefined || afterId === undefined || !sessionIdPattern.test(afterId)) {
    const problem = { field: 'cursor', message: 'must be `next` of the page before, unchanged' }
    throw invalidFields([problem])
  }
  return { at, afterId }
}
