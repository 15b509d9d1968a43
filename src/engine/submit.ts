/** How a session comes to be: admitted, its request completed once and for all, and written in one act. */
import { randomInt } from 'node:crypto'
import { join } from 'node:path'
import type { Config } from '../config.ts'
import { requireRoom } from '../disk.ts'
import type { Devices } from '../farm/devices.ts'
import { isHere, smallestLimits, type WorkerRecord } from '../farm/record.ts'
import {
  apiError,
  DarkroomError,
  ensureError,
  fieldProblems,
  invalidFields,
  redisError,
  sessionError,
  unknownSession,
  workflowError,
} from '../errors.ts'
import { counted, limitReached, mostOf } from '../limits.ts'
import { chooseShard, keys, newSessionId, shardOf, splitStepKey } from '../keys.ts'
import type { Catalogue as Models } from '../models/catalogue.ts'
import { isCommand, workflowId, type Catalogue, type Workflow } from '../workflows/index.ts'
import type { CommitsParts } from './commit.ts'
import { failure, outcomeOf, type Outcome } from './outcome.ts'
import { mostUrgent, noEffects, plan, type Effects } from './plan.ts'
import type { Reads } from './reads.ts'
import { recent } from './recent.ts'
import type { Registry } from './registry.ts'
import type { Session, Submission } from './session.ts'
import { indexesOf, type Creation, type Store } from './store.ts'
import type { Document, Transition } from './transition.ts'

/** A child session as its parent's effect asks for it. */
export interface Child {
  id: string
  stepKey: string
  invoke: string
  workflow: string
  input: unknown
  keyId: string | null
  device: string | null
  priority: string
  depth: number
  /** Whether its first steps may be dispatched at once. */
  runs: boolean
  /** It never begins. */
  end?: Outcome
}

/** A session about to be written, whatever asked for it. */
interface Draft {
  id: string
  /** `name@version`. */
  workflow: string
  input: Record<string, unknown>
  document: Document | null
  effects: Effects
  tags: string[]
  priority: string
  keyId: string | null
  device: string | null
  /** The session whose child it is. */
  parent?: string
  /** More of its first history entry. */
  about?: Record<string, unknown>
  /** Further fields of its record; null: none. */
  fields: Record<string, string | null | undefined>
  reserve: number
  end: Outcome | undefined
}

/** How deep children of children may go: a workflow that names itself would go on for ever. */
const maxDepth = 8

/**
 * What a session and its first job take in Redis, and what each step adds to that until the session ends, bytes:
 * measured, and a little more.
 */
const sessionBytes = 6000
const stepBytes = 2000

export interface SubmissionsParts {
  store: Store
  reads: Reads
  registry: Registry
  devices: Devices
  models: Models
  workers: () => Promise<WorkerRecord[]>
  config: Pick<Config, 'shards' | 'limits' | 'data' | 'minFreeDisk'>
  afterCommit: CommitsParts['afterCommit']
}

export class Submissions {
  readonly #parts: SubmissionsParts
  readonly #memory: () => Promise<{ left: number; promised: number }>
  readonly #room: () => Promise<void>

  constructor(parts: SubmissionsParts) {
    this.#parts = parts
    this.#memory = recent(1000, async () => ({ left: await parts.reads.memoryLeft(), promised: 0 }))
    const { data, minFreeDisk } = parts.config
    this.#room = recent(250, async () => {
      for (const folder of ['artifacts', 'redis'])
        await requireRoom(join(data, folder), minFreeDisk, 'accepting sessions (DARKROOM_MIN_FREE_DISK)')
    })
  }

  /**
   * Accepts a session. Its request is completed here and never changes again.
   * @throws DarkroomError `workflow.unknown`, `workflow.forbidden`, `api.invalid`, `model.unknown`, `model.unusable`,
   * `device.unknown`, `session.idempotency_mismatch`, `limit.sessions`, `limit.commands`, `redis.full`, `disk.full`,
   * `redis.unavailable`
   */
  async start(submission: Submission): Promise<{ session: Session; created: boolean }> {
    const { config, reads } = this.#parts
    const { idempotencyKey, bodySha256 = '', keyId } = submission
    const id = newSessionId(chooseShard(config.shards, idempotencyKey), Date.now())
    const idempotency = idempotencyKey === undefined ? undefined : { key: keys.idempotency(shardOf(id), keyId, idempotencyKey), bodySha256 }
    const reply = await this.#accept(submission, id, idempotency).catch(async (error: unknown) => {
      // The key of what was accepted before tells so, whatever has changed since: a full Redis, a device or a model
      // that has gone.
      const known = idempotency && (await reads.known(idempotency.key))
      if (!known) throw error
      return known
    })
    if (reply.created) return reply
    if (reply.id !== id && reply.bodySha256 !== bodySha256) {
      throw sessionError('idempotency_mismatch', `Idempotency-Key ${idempotencyKey} was used for another body, session ${reply.id}`, {
        field: 'Idempotency-Key',
      })
    }
    const session = await reads.get(reply.id)
    if (!session) throw sessionError('unknown', `session ${reply.id} was deleted`)
    return { session, created: false }
  }

  async #accept(submission: Submission, id: string, idempotency: Creation['idempotency']): ReturnType<Store['create']> {
    const workflow = this.#parts.registry.newest(submission.workflow)
    if (workflow.scope === 'operate' && !submission.mayOperate)
      throw workflowError('forbidden', `${workflow.name} is for callers with the scope \`operate\``, { field: 'workflow' })
    const { keyId, tags, priority, deadlineS, mayOperate } = submission
    const chosen = this.#device(submission, workflow)
    const [input, device] = await Promise.all([this.#resolveInput(workflow, submission.input, keyId, chosen, mayOperate), chosen])
    const begun = this.#planned(id, this.#first(workflow, input), firstPriority(priority))
    const reserve = reserveOf(workflow, input)
    await this.#admit(reserve)
    const reply = await this.#create(
      {
        id,
        workflow: workflowId(workflow),
        input,
        ...begun,
        tags,
        priority: String(priority),
        keyId,
        device,
        fields: { idempotency: idempotency?.key, ...promises(workflow, input) },
        reserve,
      },
      {
        idempotency,
        deadlineMs: deadlineS === undefined ? undefined : Math.round(deadlineS * 1000),
        counted: await this.#counted(workflow, keyId, shardOf(id)),
      },
    )
    if (reply.created) void this.#opened(id, begun.effects)
    return reply
  }

  /** @throws DarkroomError `workflow.broken` when the machine cannot start on this input */
  #first(workflow: Workflow, input: Record<string, unknown>): Transition {
    try {
      return this.#parts.registry.known(workflowId(workflow)).machine.start(input, 1)
    } catch (error) {
      if (error instanceof DarkroomError) throw error
      throw workflowError('broken', `${workflowId(workflow)} threw at its start: ${(error as Error).message}`, { cause: error })
    }
  }

  /** The one device that the session's steps run on; null: any, or the ones that its input names. */
  async #device({ device, keyId }: Submission, workflow: Workflow): Promise<string | null> {
    const { name } = workflow
    if (!isCommand(workflow)) return this.#parts.devices.choose(device, keyId)
    if (device !== undefined) throw apiError('invalid', `${name} is for the device that its input names`, { field: 'device' })
    return null
  }

  /**
   * A new session that goes on from the last recorded state of a failed or cancelled one. Returns its id.
   * @throws DarkroomError `session.not_retryable`, `session.unknown`, `workflow.unknown`, `redis.full`, `disk.full`
   */
  async retry(old: Session, keyId: string | null): Promise<string> {
    if (old.status !== 'failed' && old.status !== 'cancelled') throw sessionError('not_retryable', `session ${old.id} is ${old.status}`)
    const { status, before, snapshot, exact, strict } = await this.#parts.reads.fields(
      old.id,
      'status',
      'before',
      'snapshot',
      'exact',
      'strict',
    )
    if (status === null) throw unknownSession(old.id)
    const { workflow, machine } = this.#parts.registry.known(old.workflow)
    const document = JSON.parse(before ?? snapshot ?? 'null') as Document | null
    if (!document) throw sessionError('not_retryable', `session ${old.id} never began`)
    // Of one that was final at its start there is no state to go on from.
    const again = document.status === undefined ? machine.restart(document, 1) : this.#first(workflow, old.input)
    const id = newSessionId(shardOf(old.id), Date.now())
    const begun = this.#planned(id, again, firstPriority(old.priority))
    const reserve = reserveOf(workflow, old.input)
    await this.#admit(reserve)
    await this.#create(
      {
        id,
        workflow: old.workflow,
        input: old.input,
        ...begun,
        tags: old.tags,
        priority: String(old.priority),
        keyId,
        device: old.device,
        about: { retryOf: old.id },
        fields: { retryOf: old.id, exact, strict },
        reserve,
      },
      { copyReferencesOf: old.id, counted: await this.#counted(workflow, keyId, shardOf(id)) },
    )
    void this.#opened(id, begun.effects)
    return id
  }

  /**
   * Makes the child session that an open effect asks for, unless it is there. Whatever keeps its request from being
   * completed is its own failure, which its parent is told.
   * @throws DarkroomError `workflow.unknown` in a process that does not have its workflow; a transient error, for
   * another try
   */
  async startChild(child: Child): Promise<void> {
    const { registry } = this.#parts
    const { id, keyId, device, priority } = child
    // One that never begins needs no workflow.
    const begun = child.end ? { end: child.end } : await this.#begin(child)
    const { input, document, effects, end } = { input: {}, document: null, effects: noEffects, ...begun }
    const workflow = registry.workflow(child.workflow)
    const { sessionId: parent } = splitStepKey(child.stepKey)
    const reply = await this.#create({
      id,
      workflow: child.workflow,
      input,
      document,
      effects,
      tags: [],
      priority,
      keyId,
      device,
      parent,
      about: { parent },
      fields: {
        parent: child.stepKey,
        invoke: child.invoke,
        depth: String(child.depth),
        ...(workflow && !end && promises(workflow, input)),
      },
      reserve: workflow && !end ? reserveOf(workflow, input) : 0,
      end,
    })
    if (reply.created) await this.#opened(id, child.runs ? effects : noEffects, reply.tellsParent)
  }

  /** A child's first state, or the end of one whose request is refused. */
  async #begin(
    child: Child,
  ): Promise<{ input: Record<string, unknown>; document: Document; effects: Effects; end: Outcome | undefined } | { end: Outcome }> {
    const { workflow } = this.#parts.registry.known(child.workflow)
    try {
      if (child.depth > maxDepth)
        throw workflowError('broken', `session ${child.id} would be a child ${child.depth} levels deep; ${maxDepth} are the most`)
      const input = await this.#resolveInput(workflow, child.input, child.keyId, child.device)
      // It continues the work of its parent.
      return { input, ...this.#planned(child.id, this.#first(workflow, input), 0) }
    } catch (error) {
      const broken = this.#parts.models.ofAccepted(ensureError(error, 'workflow.broken'))
      if (broken.class === 'transient') throw broken
      return { end: failure(broken.toWire()) }
    }
  }

  /** What a session begins with; `end` when that is its end already. */
  #planned(id: string, transition: Transition, priority: number): { document: Document; effects: Effects; end: Outcome | undefined } {
    const { registry, config } = this.#parts
    const effects = plan(id, transition, { operations: registry.operations, shards: config.shards, priority })
    return { document: transition.document, effects, end: outcomeOf(transition) }
  }

  #create(
    draft: Draft,
    more: Partial<Pick<Creation, 'idempotency' | 'deadlineMs' | 'copyReferencesOf' | 'counted'>> = {},
  ): ReturnType<Store['create']> {
    const { id, workflow, input, document, effects, tags, priority, keyId, device, parent = null, about, fields, reserve, end } = draft
    const given = { keyId, device, ...fields }
    return this.#parts.store.create({
      idempotency: undefined,
      deadlineMs: undefined,
      copyReferencesOf: undefined,
      ...more,
      id,
      entry: { type: 'session.created', workflow, ...about },
      indexes: indexesOf({ workflow, tags, keyId, parent }),
      fields: {
        workflow,
        input: JSON.stringify(input),
        snapshot: JSON.stringify(document),
        tags: JSON.stringify(tags),
        priority,
        ...(Object.fromEntries(Object.entries(given).filter(([, value]) => typeof value === 'string')) as Record<string, string>),
      },
      effects,
      reserve,
      end,
    })
  }

  /**
   * What a session that its caller submits counts as. Children count as their parent alone: what was accepted goes on.
   * With several shards, those that come at the same moment may be a few too many.
   */
  async #counted(workflow: Workflow, keyId: string | null, shard: number): Promise<Creation['counted']> {
    const { config, reads } = this.#parts
    const name = isCommand(workflow) ? 'commands' : 'sessions'
    const most = mostOf(config.limits, name, keyId)
    const as = `${name}:${counted(keyId)}`
    const elsewhere = most === Infinity ? 0 : await reads.openElsewhere(as, shard)
    return { as, most: most - elsewhere, refusal: () => limitReached(name, keyId, most) }
  }

  #opened(id: string, effects: Effects, tellsParent = false): Promise<void> {
    return this.#parts.afterCommit({ id, effects, tellsParent })
  }

  /** What the client sent, completed. @throws DarkroomError `api.invalid`, and whatever the workflow refuses it with */
  async #resolveInput(
    workflow: Workflow,
    input: unknown,
    keyId: string | null,
    chosen: Promise<string | null> | string | null,
    mayOperate = false,
  ): Promise<Record<string, unknown>> {
    const parsed = workflow.input.safeParse(input)
    if (!parsed.success) throw invalidFields(fieldProblems(parsed.error.issues, 'input', 'input.'))
    const { devices, models, workers } = this.#parts
    const catalogue: Catalogue = {
      model: (name) => models.model(name),
      draw: (below) => randomInt(below),
      device: async (name, field) => {
        const { device, id, epoch } = await devices.commanded(name, keyId, field)
        return { device: device.id, worker: id, epoch }
      },
      limits: async (model) => {
        const device = await chosen
        return smallestLimits(
          (await workers()).filter(
            (each) => isHere(each) && models.holds(each.shelf, model) === 'yes' && (device === null || each.device.id === device),
          ),
        )
      },
      capacity: async (target) => {
        const worker = (await workers()).find(({ id, epoch }) => id === target.worker && epoch === target.epoch)
        return { device: worker?.report.figures.total ?? null, ram: worker?.report.ram.total ?? null }
      },
      mayOperate,
    }
    return workflow.resolveInput(parsed.data, catalogue)
  }

  /**
   * Nothing new is accepted above 80 % of maxmemory, counting what open sessions may still need: what was accepted can
   * always end. Nor when the disk of artifacts or of the private Redis has less room than the floor.
   * @throws DarkroomError `redis.full`, `disk.full`
   */
  async #admit(reserve: number): Promise<void> {
    await this.#room()
    const memory = await this.#memory()
    const bytes = sessionBytes + reserve
    if (memory.left < memory.promised + bytes)
      throw redisError('full', 'what Redis holds and its open sessions may still need is more than 80 % of its maxmemory')
    memory.promised += bytes
  }
}

/** Of a session's first steps: behind those that continue one. */
const firstPriority = (priority: number): number => mostUrgent + (9 - priority)

const reserveOf = (workflow: Workflow, input: Record<string, unknown>): number => stepBytes * (1 + workflow.steps(input))

/** What the session is promised, as fields of its record. */
const promises = (workflow: Workflow, input: Record<string, unknown>): Record<string, string> => ({
  ...(workflow.exact && { exact: '1' }),
  ...(workflow.isStrict(input) && { strict: '1' }),
})
