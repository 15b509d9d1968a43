/** What sessions are told from outside: by who may control them, or by who has an approval's token. */
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { approvalError, type DarkroomError, invalidFields, sessionError, unknownSession } from '../errors.ts'
import { sessionIdPattern, shardOf } from '../keys.ts'
import type { Commits } from './commit.ts'
import type { OwnWorkflows } from './own-workflows.ts'
import type { Reads } from './reads.ts'
import type { Registry } from './registry.ts'
import type { Approval, ApprovalAnswer, Session, Signal } from './session.ts'
import type { Store } from './store.ts'

export interface SignalsParts {
  store: Store
  reads: Reads
  registry: Registry
  ownWorkflows: OwnWorkflows
  commits: Commits
}

/** A token with when it ends, ms since 1970. It is told once; only its hash is kept. */
export interface Granted {
  token: string
  expiresAt: number
}

export class Signals {
  readonly #parts: SignalsParts

  constructor(parts: SignalsParts) {
    this.#parts = parts
  }

  /**
   * Tells a session's machine something. The event id makes a repeat the same signal.
   * @throws DarkroomError `session.unknown`, `session.ended`, `session.signal_unknown`
   */
  async send(id: string, { type, data, eventId = randomUUID() }: Signal): Promise<Session> {
    const { reads } = this.#parts
    await this.#checkTaken(await reads.mustGet(id), type, 'type')
    const name = `signal:${eventId}`
    const outcome = await this.#tell(id, { type, data, eventId })
    const now = await reads.mustGet(id)
    // A duplicate of an event that was applied before the end is not an error.
    if (outcome === 'ended' && (await reads.fields(id, `seen:${name}`))[`seen:${name}`] === null) throw hasEnded(now)
    return now
  }

  /**
   * Lets whoever has the token send one of these signals, once.
   * @throws DarkroomError `session.unknown`, `session.ended`, `session.signal_unknown`, `approval.too_many`
   */
  async grant(id: string, { signals, expiresInS }: Approval): Promise<Granted> {
    const { store, reads } = this.#parts
    const session = await reads.mustGet(id)
    for (const [i, signal] of signals.entries()) await this.#checkTaken(session, signal, `signals.${i}`)
    const token = `${id}.${randomBytes(32).toString('base64url')}`
    const reply = await store.grant(id, hashOf(token), signals, expiresInS * 1000)
    if (reply.is === 'ended') throw hasEnded(await reads.mustGet(id))
    if (reply.is !== 'ok') throw unknownSession(id)
    return { token, expiresAt: reply.expiresAt }
  }

  /**
   * Sends the signal that the token is for.
   * @throws DarkroomError `approval.unknown`, `approval.expired`, `approval.used`, `approval.late`, `session.ended`;
   * `api.invalid` for a signal that it is not for
   */
  async answer(token: string, { signal, data }: ApprovalAnswer): Promise<{ session: string; signal: string }> {
    const { reads, registry } = this.#parts
    const [id = ''] = token.split('.')
    const hash = hashOf(token)
    const name = `signal:approval.${hash}` as const
    if (!sessionIdPattern.test(id)) throw approvalError('unknown', 'there is no such approval')
    const field = `approval:${hash}` as const
    const found = await reads.fields(id, field, `seen:${name}`, 'status', 'snapshot', 'workflow')
    const text = found[field]
    if (typeof text !== 'string') throw approvalError('unknown', 'there is no such approval')
    const { until, signals } = JSON.parse(text) as { until: number; signals: string[] }
    if (found[`seen:${name}`] !== null) throw wasUsed()
    if ((await reads.now(shardOf(id))) > until) throw approvalError('expired', 'the approval was to be answered before now')
    if (!signals.includes(signal)) throw invalidFields([{ field: 'signal', message: `must be one of ${signals.join(', ')}` }])
    const machine = registry.machine(found.workflow ?? '')
    if (machine && found.snapshot !== null && !machine.takes(JSON.parse(found.snapshot), `signal.${signal}`))
      throw approvalError('late', `session ${id} does not wait for this answer now`)
    const outcome = await this.#tell(id, { type: signal, data, eventId: name.slice('signal:'.length) })
    if (outcome === 'ended') throw hasEnded(await reads.mustGet(id))
    if (outcome === 'stale') throw wasUsed()
    return { session: id, signal }
  }

  /** @throws DarkroomError `session.signal_unknown` */
  async #checkTaken({ workflow }: Session, type: string, field: string): Promise<void> {
    const { registry, ownWorkflows } = this.#parts
    const taken = (await ownWorkflows.agrees(workflow)) ? registry.machine(workflow)?.signals : undefined
    const fits = (pattern: string): boolean =>
      pattern === type || pattern === '*' || (pattern.endsWith('.*') && type.startsWith(pattern.slice(0, -1)))
    if (taken && !taken.some(fits))
      throw sessionError(
        'signal_unknown',
        `${workflow} takes no signal ${type}; it takes ${taken.length > 0 ? taken.join(', ') : 'none'}`,
        {
          field,
        },
      )
  }

  #tell(id: string, { type, data, eventId }: { type: string; data?: unknown; eventId: string }): ReturnType<Commits['apply']> {
    return this.#parts.commits.apply(id, {
      kind: 'event',
      name: `signal:${eventId}`,
      attemptId: '',
      event: { type: `signal.${type}`, ...(data !== undefined && { data }) },
      entry: { type: 'signal.received', signal: type, eventId, ...(data !== undefined && { data }) },
      artifacts: [],
      unpin: false,
    })
  }
}

const hashOf = (token: string): string => createHash('sha256').update(token).digest('hex')

const hasEnded = ({ id, status }: Session): DarkroomError => sessionError('ended', `session ${id} has ${status}`, { details: { status } })

const wasUsed = (): DarkroomError => approvalError('used', 'the approval was answered before, and counts once')
