/** The durable acts on sessions, typed: each is one script under `redis/`. Nothing else writes a session. */
import { approvalError, sessionError, workerError, type WireError } from '../errors.ts'
import { keys, shardOfMember, splitStepKey } from '../keys.ts'
import { translated, runScript, type Redis, type ScriptReply } from '../redis.ts'
import { act, type ActParts } from './act.ts'
import type { Creation } from './creation.ts'
import type { EndedItem, MovedItems } from './item-record.ts'
import type { Outcome } from './outcome.ts'
import { flat, inner, told } from './script-arguments.ts'
import { type Effects } from './plan.ts'
import type { Script } from './points.ts'
import { toSession } from './reads.ts'
import type { ControlVerb, Entry, Progress, Session, Status } from './session.ts'
import type { Times } from './times.ts'
import { noUse, usedBy, valuesOf, type Use } from './usage.ts'

/** Approvals that a session may have: each takes some bytes of its record. */
const maxApprovals = 32
/** Seconds an idempotency key is remembered. */
const idempotencyTtlS = 7 * 86_400

/** What an attempt hears with its lease. */
export type Desired = 'run' | 'pause' | 'cancel' | 'yield' | 'lost'

export interface Checkpoint {
  sha256: string
  bytes: number
  call: number
}

/** Why a transition happens; the inbox keeps it when it cannot happen now. */
export interface Cause {
  kind: 'step' | 'timer' | 'child' | 'event'
  /** Suffix of the effect, or the event's id. */
  name: string
  attemptId: string
  /** What the machine is told; a timer's event is in the document. */
  event: { type: string; [more: string]: unknown } | undefined
  entry: Entry
  artifacts: { group: 'references' | 'scratch'; sha256: string; bytes?: number }[]
  /** Of a child: what it has used. */
  use?: Use
  /** Clears the exactness key, so that another hardware class may go on. */
  unpin: boolean
}

export interface Commit {
  id: string
  version: string
  cause: Cause
  mode: 'direct' | 'inbox' | 'park'
  snapshot: string
  outcome: Outcome | undefined
  effects: Effects
  /** In mode `inbox`: the head as it was read. */
  pending: string
  /** A step that this commit opens, and leases at once to an attempt of the worker that brings the result. */
  next: ({ suffix: string } & Lease) | undefined
}

/** Who holds a step, or would. */
export interface Lease {
  attemptId: string
  worker: string
  device: string
  /** Of the worker; empty for a step that draws nothing. */
  exactnessKey: string
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
      trace: string
    }
  /** Another attempt holds it, or it is tried again later: for so long, ms. */
  | { is: 'leased' | 'early'; forMs: number }
  | { is: 'paused' | 'closed' | 'stale' | 'elsewhere' }

/** The indexes, besides those of its status, that a session stands in. */
export const indexesOf = ({ workflow, tags, keyId, parent }: Pick<Session, 'workflow' | 'tags' | 'keyId' | 'parent'>): string[] => [
  `workflow:${workflow.split('@')[0] ?? ''}`,
  ...tags.map((tag) => `tag:${tag}`),
  ...(keyId === null ? [] : [`key:${keyId}`]),
  ...(parent === null ? [] : [`parent:${parent}`]),
]

const tooLong = told(sessionError('too_long', ''))
const poisoned = told(workerError('poisoned', ''))

export interface StoreParts extends ActParts {
  times: Pick<Times, 'leaseMs'>
}

export class Store {
  readonly #parts: StoreParts
  readonly #redis: Redis
  readonly #leaseMs: number

  constructor(parts: StoreParts) {
    this.#parts = parts
    this.#redis = parts.redis
    this.#leaseMs = parts.times.leaseMs
  }

  #run(name: Script, id: string, args: (string | number)[]): Promise<ScriptReply> {
    return act(this.#parts, name, id, args)
  }

  #runStep(name: Script, stepKey: string, args: (string | number)[]): Promise<ScriptReply> {
    const { sessionId, suffix } = splitStepKey(stepKey)
    return this.#run(name, sessionId, [suffix, ...args])
  }

  // ---- sessions ----

  /**
   * Writes a session in one act, or answers which one the idempotency key stands for.
   * @throws DarkroomError `session.unknown`, `session.checkpoint_gone` when what it takes over is gone; `limit.*` when
   * there are as many as there may be
   */
  async create(
    creation: Creation,
  ): Promise<{ created: true; session: Session; tellsParent: boolean } | { created: false; id: string; bodySha256: string }> {
    const { id, idempotency, fields, deadlineMs, end, counted, carried } = creation
    const { parked } = creation.effects
    const pairs = Object.entries(fields)
    const reply = await this.#run('createSession', id, [
      idempotency?.key ?? '',
      idempotency?.bodySha256 ?? '',
      idempotencyTtlS,
      deadlineMs ?? '',
      inner(creation.entry),
      carried?.from ?? '',
      carried?.as ?? '',
      carried?.checkpoint?.suffix ?? '',
      carried?.checkpoint?.ofSuffix ?? '',
      carried?.checkpoint?.json ?? '',
      parked,
      end?.status ?? '',
      end?.result ?? '',
      end ? inner(end.entry) : '',
      counted?.as ?? '',
      counted && counted.most !== Infinity ? counted.most : '',
      creation.indexes.length,
      ...creation.indexes,
      creation.pictures.length,
      ...creation.pictures,
      carried?.scratch.length ?? 0,
      ...(carried?.scratch ?? []),
      pairs.length,
      ...pairs.flat(),
      ...flat(creation.effects, false),
      creation.reserve,
      ...creation.items,
    ])
    if (reply[0] === 'created') {
      const now = Number(reply[1])
      const deadline = deadlineMs === undefined ? {} : { deadlineAt: String(now + deadlineMs) }
      const begun = parked === '' ? { status: 'queued' } : { status: 'running', parked, startedAt: String(now) }
      const over = end && {
        status: end.status,
        endedAt: String(now),
        ...(end.result && { [end.status === 'failed' ? 'error' : 'output']: end.result }),
      }
      const record = { ...fields, ...deadline, ...begun, ...over, version: '1', createdAt: String(now) }
      return { created: true, session: toSession(id, record), tellsParent: reply[2] === 'parent' }
    }
    if (reply[0] === 'full' && counted) throw counted.refusal()
    if (reply[0] === 'gone') throw sessionError('unknown', `session ${carried?.from} was deleted just now`, { field: 'id' })
    if (reply[0] === 'moved')
      throw sessionError('checkpoint_gone', `session ${carried?.from} has gone on, and keeps that call no longer`, { field: 'from.call' })
    return { created: false, id: String(reply[1]), bodySha256: String(reply[2]) }
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
      next ? `${next.suffix} ${next.attemptId} ${this.#leaseMs} ${next.worker} ${next.device} ${next.exactnessKey || '-'}` : '',
      tooLong,
      cause.artifacts.length,
      ...cause.artifacts.flatMap(({ group, sha256 }) => [group, sha256]),
      ...flat(commit.effects, true),
      ...usedBy(cause),
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

  /**
   * `controlRevision` numbers the pauses and resumes of a parent, which its child follows: an older one changes
   * nothing.
   */
  async control(id: string, verb: ControlVerb, controlRevision = ''): Promise<{ is: 'ok' | 'ended'; status: Status } | { is: 'missing' }> {
    const [is, status] = await this.#run('controlSession', id, [verb, controlRevision])
    return is === 'missing' ? { is } : { is: is as 'ok' | 'ended', status: status as Status }
  }

  /** Keeps the hash of a token that may send one of these signals. @throws DarkroomError `approval.too_many` */
  async grant(
    id: string,
    sha256: string,
    signals: readonly string[],
    ttlMs: number,
  ): Promise<{ is: 'ok'; expiresAt: number } | { is: 'missing' } | { is: 'ended' }> {
    const [is, expiresAt] = await this.#run('grantApproval', id, [sha256, JSON.stringify(signals), ttlMs, maxApprovals])
    if (is === 'full') throw approvalError('too_many', `session ${id} has ${maxApprovals} approvals`)
    return is === 'ok' ? { is, expiresAt: Number(expiresAt) } : ({ is } as { is: 'missing' } | { is: 'ended' })
  }

  /** `deadlineMs` from now; null: none any more. */
  async change(
    id: string,
    { tags, deadlineMs }: { tags?: readonly string[] | undefined; deadlineMs?: number | null | undefined },
    entry: Entry,
  ): Promise<{ is: 'ok' | 'missing' } | { is: 'ended'; status: Status }> {
    const args = [tags ? JSON.stringify(tags) : '', deadlineMs === null ? 'none' : (deadlineMs ?? ''), inner(entry)]
    const [is, status] = await this.#run('changeSession', id, args)
    return is === 'ended' ? { is, status: status as Status } : { is: is as 'ok' | 'missing' }
  }

  /** Ends a session from outside its machine. With `timer`, only while that timer is open and in its due list. */
  async end(id: string, error: WireError, timer: string): Promise<boolean> {
    return (await this.#run('endSession', id, [JSON.stringify(error), timer]))[0] === 'ok'
  }

  /** `keepsKey`: its idempotency record stays until its own time is over. */
  async remove(id: string, indexes: string[], keepsKey: boolean): Promise<'ok' | 'missing' | 'not_ended' | 'untold'> {
    return (await this.#run('deleteSession', id, [keepsKey ? '1' : '', ...indexes]))[0] as 'ok' | 'missing' | 'not_ended' | 'untold'
  }

  /**
   * A child has followed this control revision of its parent (empty: it was cancelled). False when the parent has
   * another by now.
   */
  async settleChild(stepKey: string, value: string, controlRevision: string, rests: boolean): Promise<boolean> {
    return (await this.#runStep('settleChild', stepKey, [value, controlRevision, rests ? '1' : '']))[0] === 'ok'
  }

  /**
   * Works off the items of a session: counts `ended`, and opens as many as its window has room for, under some of these
   * ids.
   * @returns those opened, and whether that was the last of them; undefined when nobody works them off any more
   */
  async moveItems(stepKey: string, ids: readonly string[], ended: EndedItem | undefined): Promise<MovedItems | undefined> {
    const { suffix = '', value = '', status = '', references = [], use = noUse } = ended ?? {}
    const args = [suffix, value, status, references.length, ...references, ...valuesOf(use), ...ids]
    const [is, state, ...opened] = await this.#runStep('moveItems', stepKey, args)
    if (is !== 'ok') return undefined
    const pairs = opened.map(String)
    return {
      is: state as MovedItems['is'],
      opened: pairs.flatMap((each, i) => (i % 2 === 0 ? [{ suffix: each, value: pairs[i + 1] ?? '' }] : [])),
    }
  }

  // ---- attempts ----

  async take(
    stepKey: string,
    dispatch: number,
    attempt: { id: string; worker: string; device: string; exactnessKey: string },
  ): Promise<TakeReply> {
    const reply = await this.#runStep('takeStep', stepKey, [
      dispatch,
      attempt.id,
      attempt.worker,
      attempt.device,
      attempt.exactnessKey,
      this.#leaseMs,
    ])
    const [is, values] = reply
    if (is === 'taken') {
      const [epoch, version = '', tries, resourceTries, priority, trace = ''] = String(values).split(' ')
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
        trace,
      }
    }
    if (is === 'leased' || is === 'early') return { is, forMs: Number(values) }
    return { is: is as 'paused' | 'closed' | 'stale' | 'elsewhere' }
  }

  /**
   * What is desired of the session; `yield`: it is to make way for an urgent one; `lost`: another attempt has the step.
   */
  async renew(stepKey: string, attemptId: string): Promise<Desired> {
    const [is, desired] = await this.#runStep('renewLease', stepKey, [attemptId, this.#leaseMs])
    return is === 'ok' ? (desired as Desired) : 'lost'
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
    const [is, worker] = await this.#runStep('expireLease', stepKey, [limit, poisoned])
    return { is: is as 'reopened' | 'poisoned' | 'alive' | 'closed', worker: String(worker ?? '') }
  }

  /**
   * Notes the queue of a waiting step's job, under a raised dispatch number if asked. Undefined when another process
   * was faster.
   */
  async place(stepKey: string, dispatch: number, queue: string, raise: boolean): Promise<number | undefined> {
    const [is, number] = await this.#runStep('placeStep', stepKey, [dispatch, queue, raise ? '1' : ''])
    return is === 'ok' ? Number(number) : undefined
  }

  /** Says what the step's session waits for. Returns for how long no worker could run its step, ms. */
  async waits(stepKey: string, waiting: string): Promise<number> {
    const [is, since, now] = await this.#runStep('markWaiting', stepKey, [waiting])
    return is === 'ok' ? Number(now) - Number(since) : 0
  }

  // ---- due lists ----

  /** Due members of a list, `max` at most, handed to this caller alone for `holdMs`. */
  async claim(list: 'outbox' | 'timers' | 'leases', shard: number, max: number, holdMs: number): Promise<string[]> {
    return (await runScript(this.#redis, 'claimDue', keys[list](shard), [max, holdMs])) as unknown as string[]
  }

  async forget(list: 'outbox' | 'timers', member: string): Promise<void> {
    await translated(this.#redis.zrem(keys[list](shardOfMember(member)), member))
  }

  /** Makes an outbox entry due again at `dueAt`, if it is still there. */
  async postpone(member: string, dueAt: number): Promise<void> {
    await translated(this.#redis.zadd(keys.outbox(shardOfMember(member)), 'XX', dueAt, member))
  }
}
