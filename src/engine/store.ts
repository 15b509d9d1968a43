/** The durable acts on sessions, typed: each is one script under `redis/`, or a read. Nothing else writes a session. */
import { type WireError, apiError, configError, sessionError } from '../errors.ts'
import { keys, sessionIdPattern, shardOf, splitStepKey } from '../keys.ts'
import { ask, askAll, runScript, type Redis, type ScriptReply } from '../redis.ts'
import { acts, type AtPoint, type Script } from './points.ts'
import {
  ended,
  type ControlVerb,
  type Progress,
  type Session,
  type SessionEvent,
  type SessionFilter,
  type SessionPage,
  type Status,
} from './session.ts'
import type { OpenedSession, OpenedStep, OpenedTimer } from './transition.ts'

/** How long a lease lasts without a renewal, and how often it is renewed, ms. */
export const leaseMs = 5000
export const renewMs = 1500

/** Seconds an idempotency key is remembered. */
const idempotencyTtlS = 7 * 86_400

export interface Checkpoint {
  sha256: string
  bytes: number
  call: number
}

/** A step as its session asked for it, with the lane and priority its dispatch needs. */
export interface PlannedStep extends OpenedStep {
  lane: string
  priority: number
}

/** A child session with the id it has from the commit that asked for it. */
export interface PlannedSession extends OpenedSession {
  child: string
}

export interface Effects {
  closed: { suffix: string; child: string }[]
  steps: PlannedStep[]
  sessions: PlannedSession[]
  timers: OpenedTimer[]
  /** What the session waits for when no step of it is open; empty otherwise. */
  parked: string
}

/** What an open child's effect holds, and the outbox behind `child:<step key>:`. */
export const childValue = ({ child, workflow }: { child: string; workflow: string }): string => `${child}:${workflow}`

export interface Creation {
  id: string
  idempotency: { key: string; bodySha256: string } | undefined
  deadlineMs: number | undefined
  entry: Entry
  copyReferencesOf: string | undefined
  indexes: string[]
  fields: Record<string, string>
  effects: Effects
  /** Bytes of Redis it may still need until it ends. */
  reserve: number
  /** A child that never begins: cancelled before it was there, or its request cannot be made whole. */
  end?: { status: 'failed' | 'cancelled'; error: WireError | undefined }
}

/** A history entry before Redis gives it its time. */
export type Entry = Omit<SessionEvent, 'at'>

/** Why a transition happens; the inbox keeps it when it cannot happen now. */
export interface Cause {
  kind: 'step' | 'timer' | 'child' | 'event'
  /** Suffix of the effect, or the event's id. */
  name: string
  attemptId: string
  /** What the machine is told; a timer's event is in the document. */
  event: { type: string; [more: string]: unknown } | undefined
  entry: Entry
  artifacts: { group: 'references' | 'scratch'; sha256: string }[]
  /** Clears the exactness key, so that another hardware class may go on. */
  unpin: boolean
}

export interface Commit {
  id: string
  version: string
  cause: Cause
  mode: 'direct' | 'inbox' | 'park'
  snapshot: string
  outcome: { status: 'succeeded' | 'failed'; result: string; entry: Entry } | undefined
  effects: Effects
  /** In mode `inbox`: the head as it was read. */
  pending: string
  /** A step beside the device that this commit opens, and leases at once to an attempt of the worker that brings the result. */
  next: ({ suffix: string } & Lease) | undefined
}

/** Who holds a step, or would. */
export interface Lease {
  attemptId: string
  worker: string
  device: string
}

export type CommitReply =
  /** `parent`: it has ended, and a parent is to be told. `taken`: `next` is leased. */
  | { is: 'ok'; parent: boolean; taken: boolean }
  | { is: 'conflict'; version: string; snapshot: string }
  | { is: 'stale' | 'missing' | 'inbox' }
  | { is: 'ended'; status: Status }

export type TakeReply =
  | {
      is: 'taken'
      epoch: number
      version: string
      snapshot: string
      workflow: string
      checkpoints: Checkpoint[]
      tries: number
      resourceTries: number
      priority: number
    }
  | { is: 'leased' | 'early'; until: number }
  | { is: 'paused' | 'closed' | 'stale' | 'elsewhere' }

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

/** JSON of an entry without its braces, as the scripts put it behind the time. */
const inner = (entry: object): string => JSON.stringify(entry).slice(1, -1)

const flat = (effects: Effects, withClosed: boolean): (string | number)[] => [
  ...(withClosed ? [effects.closed.length, ...effects.closed.flatMap(({ suffix, child }) => [suffix, child])] : []),
  effects.steps.length,
  ...effects.steps.flatMap((step) => [step.suffix, step.step, step.invoke, step.lane, step.priority]),
  effects.timers.length,
  ...effects.timers.flatMap((timer) => [timer.suffix, timer.delayMs]),
  effects.sessions.length,
  ...effects.sessions.flatMap((planned) => [planned.suffix, childValue(planned)]),
]

/**
 * The number of shards may only grow: a process with fewer would not see what lies in the others.
 * @throws DarkroomError `config.invalid`
 */
export async function checkShards(redis: Redis, shards: number): Promise<void> {
  const known = Number((await ask(redis.get(keys.shards()))) ?? 0)
  if (known > shards) {
    const problem = `DARKROOM_SHARDS is ${shards}, but this farm has ${known} shards`
    throw configError('invalid', problem, {
      remedy: `Set DARKROOM_SHARDS=${known} for every API and worker; it may only grow.`,
    })
  }
  if (known < shards) await ask(redis.set(keys.shards(), shards))
}

export class Store {
  readonly #redis: Redis
  readonly #at: AtPoint | undefined
  readonly shards: number

  constructor(redis: Redis, shards: number, at?: AtPoint) {
    this.#redis = redis
    this.#at = at
    this.shards = shards
  }

  #run(name: Script, id: string, args: (string | number)[]): Promise<ScriptReply> {
    this.#at?.(`${acts[name]}.before`, id)
    const reply = runScript(this.#redis, name, keys.session(id), args)
    return this.#at ? reply.then((answer) => (this.#at?.(`${acts[name]}.after`, id), answer)) : reply
  }

  #runStep(name: Script, stepKey: string, args: (string | number)[]): Promise<ScriptReply> {
    const { sessionId, suffix } = splitStepKey(stepKey)
    return this.#run(name, sessionId, [suffix, ...args])
  }

  // ---- sessions ----

  /**
   * Writes a session whole, or answers which one the idempotency key stands for.
   * @throws DarkroomError `session.unknown` when the one to copy references from is gone
   */
  async create(creation: Creation): Promise<{ created: true; session: Session } | { created: false; id: string; bodySha256: string }> {
    const { id, idempotency, fields, deadlineMs, end } = creation
    const { parked } = creation.effects
    const endEntry = end && { type: `session.${end.status}`, ...(end.error && { error: end.error }) }
    const pairs = Object.entries(fields)
    const reply = await this.#run('createSession', id, [
      idempotency?.key ?? '',
      idempotency?.bodySha256 ?? '',
      idempotencyTtlS,
      deadlineMs ?? '',
      inner(creation.entry),
      creation.copyReferencesOf ?? '',
      parked,
      end?.status ?? '',
      end?.error ? JSON.stringify(end.error) : '',
      endEntry ? inner(endEntry) : '',
      creation.indexes.length,
      ...creation.indexes,
      pairs.length,
      ...pairs.flat(),
      ...flat(creation.effects, false),
      creation.reserve,
    ])
    if (reply[0] === 'created') {
      const now = Number(reply[1])
      const deadline = deadlineMs === undefined ? {} : { deadlineAt: String(now + deadlineMs) }
      const begun = parked === '' ? { status: 'queued' } : { status: 'running', parked, startedAt: String(now) }
      return { created: true, session: toSession(id, { ...fields, ...deadline, ...begun, version: '1', createdAt: String(now) }) }
    }
    if (reply[0] === 'gone') throw sessionError('unknown', `session ${creation.copyReferencesOf} was deleted just now`, { field: 'id' })
    return { created: false, id: String(reply[1]), bodySha256: String(reply[2]) }
  }

  /** The session that an idempotency record stands for, and the hash of the body it was sent with. */
  async known(idempotency: string): Promise<{ created: false; id: string; bodySha256: string } | undefined> {
    const [id, bodySha256] = await ask(this.#redis.hmget(idempotency, 'session', 'body'))
    return id ? { created: false, id, bodySha256: bodySha256 ?? '' } : undefined
  }

  /** Bytes left below 80 % of maxmemory once the open sessions have what they may still need; infinite where there is no limit. */
  async memoryLeft(): Promise<number> {
    const shards = Array.from({ length: this.shards }, (_, shard) => keys.reserved(shard))
    const [info, ...reserved] = await Promise.all([ask(this.#redis.info('memory')), ...shards.map((key) => ask(this.#redis.get(key)))])
    const number = (name: string): number => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(info)?.[1] ?? 0)
    const limit = number('maxmemory') || Infinity
    return 0.8 * limit - number('used_memory') - reserved.reduce((sum, bytes) => sum + Number(bytes), 0)
  }

  async commit(commit: Commit): Promise<CommitReply> {
    const reply = await this.#commit(commit, commit.mode === 'park' ? JSON.stringify(commit.cause) : commit.pending)
    return reply.is === 'rests' ? ((await this.#commit(commit, JSON.stringify(commit.cause))) as CommitReply) : reply
  }

  async #commit(commit: Commit, pending: string): Promise<CommitReply | { is: 'rests' }> {
    const { cause, outcome, next } = commit
    const reply = await this.#run('commitTransition', commit.id, [
      commit.version,
      cause.kind,
      cause.name,
      cause.attemptId,
      commit.mode,
      pending,
      commit.snapshot,
      outcome?.status ?? '',
      outcome?.result ?? '',
      inner(cause.entry),
      outcome ? inner(outcome.entry) : '',
      cause.unpin ? '1' : '',
      outcome ? '' : commit.effects.parked,
      next ? `${next.suffix} ${next.attemptId} ${leaseMs} ${next.worker} ${next.device}` : '',
      cause.artifacts.length,
      ...cause.artifacts.flatMap(({ group, sha256 }) => [group, sha256]),
      ...flat(commit.effects, true),
    ])
    switch (reply[0]) {
      case 'ok':
        return { is: 'ok', parent: reply[1] === 'parent', taken: reply[2] === 'taken' }
      case 'conflict':
        return { is: 'conflict', version: String(reply[1]), snapshot: String(reply[2]) }
      case 'ended':
        return { is: 'ended', status: reply[1] as Status }
      default:
        return { is: reply[0] as 'stale' | 'missing' | 'inbox' | 'rests' }
    }
  }

  /** `wish` numbers what a parent asks of its child: an older one changes nothing. */
  async control(id: string, verb: ControlVerb, wish = ''): Promise<{ is: 'ok' | 'ended'; status: Status } | { is: 'missing' }> {
    const [is, status] = await this.#run('controlSession', id, [verb, wish])
    return is === 'missing' ? { is } : { is: is as 'ok' | 'ended', status: status as Status }
  }

  /** Ends a session from outside its machine. With `timer`, only while that timer is open and in the clock. */
  async end(id: string, error: WireError, timer: string): Promise<boolean> {
    return (await this.#run('endSession', id, [JSON.stringify(error), timer]))[0] === 'ok'
  }

  /** `keepsKey`: its idempotency record stays until its own time is over. */
  async remove(id: string, indexes: string[], keepsKey: boolean): Promise<'ok' | 'missing' | 'not_ended' | 'untold'> {
    return (await this.#run('deleteSession', id, [keepsKey ? '1' : '', ...indexes]))[0] as 'ok' | 'missing' | 'not_ended' | 'untold'
  }

  /** A child has followed its parent's wish (empty: it was cancelled). False when there is another wish by now. */
  async settleChild(stepKey: string, value: string, wish: string, rests: boolean): Promise<boolean> {
    return (await this.#runStep('settleChild', stepKey, [value, wish, rests ? '1' : '']))[0] === 'ok'
  }

  /** Artifacts a session names as its results. */
  async references(id: string): Promise<string[]> {
    return ask(this.#redis.smembers(keys.references(id)))
  }

  // ---- attempts ----

  async take(
    stepKey: string,
    dispatch: number,
    attempt: { id: string; worker: string; device: string; exactnessKey: string },
    leaseMs: number,
  ): Promise<TakeReply> {
    const reply = await this.#runStep('takeStep', stepKey, [
      dispatch,
      attempt.id,
      attempt.worker,
      attempt.device,
      attempt.exactnessKey,
      leaseMs,
    ])
    const [is, values] = reply
    if (is === 'taken') {
      const [epoch, version = '', tries, resourceTries, priority] = String(values).split(' ')
      return {
        is,
        epoch: Number(epoch),
        version,
        snapshot: String(reply[2]),
        workflow: String(reply[3]),
        checkpoints: reply.slice(4).map((text) => JSON.parse(String(text)) as Checkpoint),
        tries: Number(tries),
        resourceTries: Number(resourceTries),
        priority: Number(priority),
      }
    }
    if (is === 'leased' || is === 'early') return { is, until: Number(values) }
    return { is: is as 'paused' | 'closed' | 'stale' | 'elsewhere' }
  }

  /** What is desired of the session, or `lost` when somebody else has the step. */
  async renew(stepKey: string, attemptId: string, leaseMs: number): Promise<'run' | 'pause' | 'cancel' | 'lost'> {
    const [is, desired] = await this.#runStep('renewLease', stepKey, [attemptId, leaseMs])
    return is === 'ok' ? (desired as 'run' | 'pause' | 'cancel') : 'lost'
  }

  async checkpoint(stepKey: string, attemptId: string, checkpoint: Checkpoint): Promise<boolean> {
    return (await this.#runStep('recordCheckpoint', stepKey, [attemptId, checkpoint.sha256, JSON.stringify(checkpoint)]))[0] === 'ok'
  }

  async release(stepKey: string, attemptId: string, reason: string, checkpoint: Checkpoint | undefined): Promise<boolean> {
    const args = [attemptId, reason, checkpoint?.sha256 ?? '', checkpoint ? JSON.stringify(checkpoint) : '']
    return (await this.#runStep('releaseStep', stepKey, args))[0] === 'ok'
  }

  async retry(stepKey: string, attemptId: string, delayMs: number, counter: 'tries' | 'resourceTries', error: WireError): Promise<boolean> {
    return (await this.#runStep('retryStep', stepKey, [attemptId, delayMs, counter, JSON.stringify(error)]))[0] === 'ok'
  }

  async note(stepKey: string, attemptId: string, note: string): Promise<boolean> {
    return (await this.#runStep('noteStep', stepKey, [attemptId, JSON.stringify(note)]))[0] === 'ok'
  }

  async progress(stepKey: string, attemptId: string, { fraction, ...rest }: Progress): Promise<boolean> {
    return (await this.#runStep('reportProgress', stepKey, [attemptId, fraction.toFixed(4), inner(rest)]))[0] === 'ok'
  }

  async expire(stepKey: string, limit: number): Promise<{ is: 'reopened' | 'poisoned' | 'alive' | 'closed'; worker: string }> {
    const [is, worker] = await this.#runStep('expireLease', stepKey, [limit])
    return { is: is as 'reopened' | 'poisoned' | 'alive' | 'closed', worker: String(worker ?? '') }
  }

  /** Notes the queue of a waiting step's job, under a raised dispatch number if asked. Undefined when somebody was faster. */
  async place(stepKey: string, dispatch: number, queue: string, raise: boolean): Promise<number | undefined> {
    const [is, number] = await this.#runStep('placeStep', stepKey, [dispatch, queue, raise ? '1' : ''])
    return is === 'ok' ? Number(number) : undefined
  }

  // ---- clocks ----

  /** Due members of a clock, handed to this caller alone for `holdMs`. */
  async claim(clock: 'outbox' | 'timers' | 'leases', shard: number, most: number, holdMs: number): Promise<string[]> {
    return (await runScript(this.#redis, 'claimDue', keys[clock](shard), [most, holdMs])) as unknown as string[]
  }

  async forget(clock: 'outbox' | 'timers', member: string): Promise<void> {
    await ask(this.#redis.zrem(keys[clock](shardOf(member.replace(/^\w+:/, ''))), member))
  }

  /** Makes an outbox entry due again `delayMs` from now, if it is still there. */
  async postpone(member: string, dueAt: number): Promise<void> {
    await ask(this.#redis.zadd(keys.outbox(shardOf(member.replace(/^\w+:/, ''))), 'XX', dueAt, member))
  }

  async now(): Promise<number> {
    const [seconds, micros] = await ask(this.#redis.time())
    return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
  }

  // ---- retention ----

  /** True for one process of the farm; for the others once `holdMs` are over. */
  async takeTurn(holdMs: number): Promise<boolean> {
    return (await ask(this.#redis.set(keys.retention(), '1', 'PX', holdMs, 'NX'))) !== null
  }

  /** Sessions of a shard that ended more than `keepS` seconds ago (0: for ever), or before the latest `most`; the oldest, `limit` at most. */
  async outlived(shard: number, keepS: number, most: number, limit: number): Promise<string[]> {
    const index = keys.index(shard, 'ended')
    const surplus = most === Infinity ? 0 : Math.min(limit, (await ask(this.#redis.zcard(index))) - most)
    const [tooMany, tooOld] = await Promise.all([
      surplus > 0 ? ask(this.#redis.zrange(index, '0', String(surplus - 1))) : [],
      keepS > 0 ? ask(this.#redis.zrangebyscore(index, '-inf', (await this.now()) - keepS * 1000, 'LIMIT', 0, limit)) : [],
    ])
    return tooMany.length > tooOld.length ? tooMany : tooOld
  }

  /** The session's retention counts from now. */
  async spare(id: string): Promise<void> {
    await ask(this.#redis.zadd(keys.index(shardOf(id), 'ended'), 'XX', await this.now(), id))
  }

  /** Takes an entry without a session out of the index of ends. */
  async forgetEnd(id: string): Promise<void> {
    await ask(this.#redis.zrem(keys.index(shardOf(id), 'ended'), id))
  }

  /** How many ended sessions of a shard the index of ends lacks. */
  async endsMissing(shard: number): Promise<number> {
    const statuses = [...ended].map((status) => keys.index(shard, 'status', status))
    const [indexed = 0, ...counts] = (await askAll(
      [keys.index(shard, 'ended'), ...statuses].reduce((transaction, index) => transaction.zcard(index), this.#redis.multi()),
    )) as number[]
    return counts.reduce((sum, count) => sum + count, 0) - indexed
  }

  /** Writes the index of ends anew, beside whatever ends meanwhile. Returns how many entries it lacked. */
  async indexEnds(shard: number): Promise<number> {
    const index = keys.index(shard, 'ended')
    let written = 0
    for (const status of ended) {
      for await (const ids of this.#members(keys.index(shard, 'status', status))) {
        const answers = await askAll(ids.reduce((pipeline, id) => pipeline.hget(keys.session(id), 'endedAt'), this.#redis.pipeline()))
        const ends = answers as (string | null)[]
        const pairs = ids.flatMap((id, i) => (typeof ends[i] === 'string' ? [ends[i], id] : []))
        if (pairs.length > 0) written += Number(await ask(this.#redis.zadd(index, 'NX', ...pairs)))
      }
    }
    return written
  }

  // ---- reads ----

  async step(stepKey: string): Promise<StepRecord | undefined> {
    const record = await ask(this.#redis.hgetall(keys.step(stepKey)))
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

  async fields<const Names extends readonly string[]>(id: string, ...names: Names): Promise<Record<Names[number], string | null>> {
    const values = await ask(this.#redis.hmget(keys.session(id), ...names))
    return Object.fromEntries(names.map((name, i) => [name, values[i] ?? null])) as Record<Names[number], string | null>
  }

  /** Those of these sessions that have ended or are gone, with the time since, ms: Infinity for those that are gone. */
  async endedOf(ids: string[]): Promise<Map<string, number>> {
    const now = await this.now()
    const found = await askAll(ids.reduce((pipeline, id) => pipeline.hmget(keys.session(id), 'status', 'endedAt'), this.#redis.pipeline()))
    const isOver = ([status]: (string | null)[]): boolean => status === null || status === undefined || ended.has(status as Status)
    return new Map(
      ids.flatMap((id, i) => {
        const record = found[i] as (string | null)[]
        return isOver(record) ? [[id, record[1] ? now - Number(record[1]) : Infinity] as const] : []
      }),
    )
  }

  /** Says what the step's session waits for. Returns for how long nobody could run its step, ms. */
  async waits(stepKey: string, waiting: string): Promise<number> {
    const [is, since, now] = await this.#runStep('markWaiting', stepKey, [waiting])
    return is === 'ok' ? Number(now) - Number(since) : 0
  }

  /** Why nobody can run what is due first in the outboxes; empty when somebody can. */
  async stranded(): Promise<string[]> {
    const reasons = new Set<string>()
    for (let shard = 0; shard < this.shards; shard++) {
      const due = await ask(this.#redis.zrange(keys.outbox(shard), '0', '199'))
      const ids = new Set(
        due.filter((member) => member.startsWith('step:')).map((member) => splitStepKey(member.slice('step:'.length)).sessionId),
      )
      const waiting = await Promise.all([...ids].map((id) => ask(this.#redis.hget(keys.session(id), 'waiting'))))
      for (const reason of waiting) if (reason !== null) reasons.add(reason)
    }
    return [...reasons]
  }

  async get(id: string): Promise<Session | undefined> {
    const record = await ask(this.#redis.hgetall(keys.session(id)))
    return record['status'] === undefined ? undefined : toSession(id, record)
  }

  async inboxHead(id: string): Promise<string | null> {
    return ask(this.#redis.lindex(keys.inbox(id), 0))
  }

  async history(id: string, after: number, limit: number): Promise<{ id: number; event: SessionEvent }[]> {
    const texts = await ask(this.#redis.lrange(keys.history(id), after, after + limit - 1))
    return texts.map((text, i) => ({ id: after + i + 1, event: JSON.parse(text) as SessionEvent }))
  }

  /** A page, newest first. Walks the smallest index that applies, so its cost does not grow with the sessions that are not asked for. */
  async list(filter: SessionFilter): Promise<SessionPage> {
    const perShard = await Promise.all(Array.from({ length: this.shards }, (_, shard) => this.#listShard(shard, filter)))
    const merged = perShard.flat().toSorted((a, b) => b.createdAt - a.createdAt || (a.id < b.id ? 1 : -1))
    const page = merged.slice(0, filter.limit)
    const last = page.at(-1)
    return {
      sessions: page,
      next: merged.length > filter.limit && last ? Buffer.from(`${last.createdAt}:${last.id}`).toString('base64url') : null,
    }
  }

  async #listShard(shard: number, filter: SessionFilter): Promise<Session[]> {
    const candidates = [
      filter.status && keys.index(shard, 'status', filter.status),
      filter.workflow && keys.index(shard, 'workflow', filter.workflow.split('@')[0]),
      filter.tag && keys.index(shard, 'tag', filter.tag),
      filter.parent && keys.index(shard, 'parent', filter.parent),
      filter.keyId && keys.index(shard, 'key', filter.keyId),
    ].filter((index): index is string => Boolean(index))
    if (candidates.length === 0) candidates.push(keys.index(shard, 'all'))
    const sizes = await Promise.all(candidates.map((index) => ask(this.#redis.zcard(index))))
    const index = candidates[sizes.indexOf(Math.min(...sizes))] ?? keys.index(shard, 'all')

    const { at, afterId } = readCursor(filter.cursor)
    const found: Session[] = []
    const batch = filter.limit + 1
    for (let offset = 0; found.length <= filter.limit; offset += batch) {
      const ids = await ask(this.#redis.zrevrangebyscore(index, at, '-inf', 'LIMIT', offset, batch))
      if (ids.length === 0) break
      const records = await askAll(ids.reduce((pipeline, id) => pipeline.hgetall(keys.session(id)), this.#redis.pipeline()))
      for (const [i, id] of ids.entries()) {
        const record = records[i] as Record<string, string> | undefined
        if (!record?.['status']) continue
        const session = toSession(id, record)
        const isPast = afterId !== undefined && String(session.createdAt) === at && id >= afterId
        if (!isPast && matches(session, filter)) found.push(session)
      }
    }
    return found.slice(0, filter.limit + 1)
  }

  /** Sessions of a shard that name this artifact as a result. */
  async namers(shard: number, sha256: string): Promise<string[]> {
    return ask(this.#redis.smembers(keys.named(shard, sha256)))
  }

  /** Every session id, in pages, for the collector; one that is there all the while is not left out when others go meanwhile. */
  async *ids(): AsyncGenerator<string[]> {
    for (let shard = 0; shard < this.shards; shard++) {
      yield* this.#members(keys.index(shard, 'all'))
    }
  }

  /** Members of an index, in pages. */
  async *#members(index: string): AsyncGenerator<string[]> {
    let cursor = '0'
    do {
      const [next, found] = await ask(this.#redis.zscan(index, cursor, 'COUNT', '500'))
      cursor = next
      yield found.filter((_, i) => i % 2 === 0)
    } while (cursor !== '0')
  }

  /** Children of a session that are there, `most` at most. */
  async children(id: string, most: number): Promise<string[]> {
    const found: string[] = []
    for (let shard = 0; shard < this.shards && found.length < most; shard++)
      found.push(...(await ask(this.#redis.zrange(keys.index(shard, 'parent', id), '0', String(most - found.length - 1)))))
    return found
  }

  /** Artifacts these sessions name, as results or for their steps. */
  async namedBy(ids: string[]): Promise<string[]> {
    const sets = await askAll(
      ids.reduce((pipeline, id) => pipeline.smembers(keys.references(id)).smembers(keys.scratch(id)), this.#redis.pipeline()),
    )
    return sets.flatMap((members) => members as string[])
  }
}

function matches(session: Session, filter: SessionFilter): boolean {
  return (
    (!filter.status || session.status === filter.status) &&
    (!filter.workflow || session.workflow === filter.workflow || session.workflow.split('@')[0] === filter.workflow) &&
    (!filter.tag || session.tags.includes(filter.tag)) &&
    (!filter.parent || session.parent === filter.parent) &&
    (filter.keyId === null || session.keyId === filter.keyId)
  )
}

function toSession(id: string, record: Record<string, string>): Session {
  const json = <T>(field: string): T | null => (record[field] === undefined ? null : (JSON.parse(record[field]) as T))
  const number = (field: string): number | null => (record[field] === undefined ? null : Number(record[field]))
  const status = record['status'] as Status
  const progress = json<Progress>('progress')
  return {
    id,
    workflow: record['workflow'] ?? '',
    status,
    waiting: record['waiting'] ?? (status === 'running' ? record['parked'] : undefined) ?? null,
    input: json<Record<string, unknown>>('input') ?? {},
    output: json<Record<string, unknown>>('output'),
    error: json<WireError>('error'),
    progress: progress && status === 'succeeded' ? { ...progress, fraction: 1 } : progress,
    priority: Number(record['priority'] ?? 5),
    tags: json<string[]>('tags') ?? [],
    keyId: record['keyId'] ?? null,
    device: record['device'] ?? null,
    retryOf: record['retryOf'] ?? null,
    parent: record['parent'] === undefined ? null : splitStepKey(record['parent']).sessionId,
    exactnessKey: record['exactnessKey'] ?? null,
    createdAt: number('createdAt') ?? 0,
    startedAt: number('startedAt'),
    endedAt: number('endedAt'),
    deadlineAt: number('deadlineAt'),
    version: Number(record['version'] ?? 0),
  }
}

/** Where a page begins: `next` of the page before. @throws DarkroomError `api.invalid` for one that no page gave. */
function readCursor(cursor: string | undefined): { at: string; afterId: string | undefined } {
  if (cursor === undefined) return { at: '+inf', afterId: undefined }
  const [, at, afterId] = /^(\d{1,15}):(.+)$/s.exec(Buffer.from(cursor, 'base64url').toString()) ?? []
  if (at === undefined || afterId === undefined || !sessionIdPattern.test(afterId)) {
    const problem = { field: 'cursor', message: 'must be `next` of the page before, unchanged' }
    throw apiError('invalid', `cursor: ${problem.message}`, { field: 'cursor', details: { problems: [problem] } })
  }
  return { at, afterId }
}
