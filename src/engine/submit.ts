/** How a session comes to be: admitted, its request completed once and for all, and written in one act. */
import { join } from 'node:path'
import type { Config } from '../config.ts'
import { requireRoom } from '../disk.ts'
import { apiError, DarkroomError, ensureError, redisError, sessionError, workflowError } from '../errors.ts'
import { counted, limitReached, mostOf } from '../limits.ts'
import { chooseShard, keys, newSessionId, shardOf, splitStepKey } from '../keys.ts'
import type { Webhooks } from '../webhooks/webhooks.ts'
import { isCommand, workflowId, type Items, type Workflow } from '../workflows/index.ts'
import { checkSize, type CommitsParts, type Committed } from './commit.ts'
import { completed, type Completed, type CompletionParts } from './completion.ts'
import type { Carried, Creation } from './creation.ts'
import { creationOf, goingOnKey, groupText, mismatch, promises, type CreationMore, type Draft } from './draft.ts'
import { failure, outcomeOf, type Outcome } from './outcome.ts'
import type { OwnWorkflows } from './own-workflows.ts'
import { firstPriority, noEffects, plan, type Effects } from './plan.ts'
import type { Reads } from './reads.ts'
import { recent } from './recent.ts'
import type { Registry } from './registry.ts'
import type { ItemReads } from './item-reads.ts'
import { reserveOf, reserveOfItems, sessionBytes } from './reserve.ts'
import type { Asker, Session, Submission } from './session.ts'
import { type Store } from './store.ts'
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
  /** As its record has it. */
  group: string | null
  trace: string
  depth: number
  /** Whether its first steps may be dispatched at once. */
  runs: boolean
  /** It never begins. */
  end?: Outcome
}

/** A session that goes on from a state of another. */
export interface GoingOn {
  /** The state with its open effects anew. */
  again: Transition
  input: Record<string, unknown>
  pictures: readonly string[]
  /** Of a retry of a session that works some off: those that have not succeeded. */
  items?: Items | undefined
  about: Record<string, unknown>
  fields: Record<string, string | null | undefined>
  carried: Carried
}

/** The shard of a session that is not made: all that there are are elsewhere. */
const nowhere = -1

/** How deep children of children may go: a workflow that names itself would go on for ever. */
const maxDepth = 8

/** A submission as it would be accepted. */
export interface Rehearsed {
  workflow: Workflow
  input: Record<string, unknown>
  items: Items | undefined
  /** The one device for its steps; null: any. */
  device: string | null
  /** What is drawn: the session itself, or the first of its items. */
  one: { workflow: Workflow; input: Record<string, unknown> }
  /** The first state of that. */
  first: Transition
}

export interface SubmissionsParts extends CompletionParts {
  store: Store
  reads: Reads
  items: ItemReads
  registry: Registry
  ownWorkflows: OwnWorkflows
  webhooks: Webhooks
  config: Pick<Config, 'shards' | 'limits' | 'data' | 'minFreeDisk' | 'wildcards'>
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
   * `device.unknown`, `webhook.unknown`, `workflow.changed`, `workflow.too_large`, `session.idempotency_mismatch`,
   * `limit.sessions`, `limit.commands`, `redis.full`, `disk.full`, `redis.unavailable`
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
    if (reply.id !== id && reply.bodySha256 !== bodySha256) throw mismatch(idempotencyKey ?? '', reply.id)
    const session = await reads.get(reply.id)
    if (!session) throw sessionError('unknown', `session ${reply.id} was deleted`)
    return { session, created: false }
  }

  /**
   * Whether a submission would be accepted now, as far as that is its own matter.
   * @throws DarkroomError as `start`, but for a limit, a full Redis or a full disk
   */
  async check(submission: Submission): Promise<void> {
    await this.#whole(submission)
  }

  /**
   * A submission as it would be accepted now. Nothing is written.
   * @throws DarkroomError as `start`
   */
  async rehearse(submission: Submission): Promise<Rehearsed> {
    const { registry, ownWorkflows } = this.#parts
    const whole = await this.#whole(submission, (id) => ownWorkflows.mayUse(id))
    const { workflow, input, items, device } = whole
    await this.#requireRoom(reserveOf(workflow, input) + reserveOfItems(items))
    const counted = await this.#counted(workflow, submission.keyId, nowhere)
    if (counted && (counted.most ?? Infinity) <= 0) throw counted.refusal()
    const [own] = items?.each ?? []
    if (!items || own === undefined) return { ...whole, items, one: whole, first: this.first(workflow, input) }
    const child = registry.known(items.workflow).workflow
    const given = { ...items.base, ...(JSON.parse(own) as Record<string, unknown>) }
    const one = await completed(this.#parts, child, given, { keyId: submission.keyId, device, mayOperate: submission.mayOperate })
    return { ...whole, items, one: { workflow: child, input: one.input }, first: this.first(child, one.input) }
  }

  async #whole(submission: Submission, use = (id: string) => this.#parts.ownWorkflows.use(id)) {
    const workflow = this.#parts.registry.newest(submission.workflow)
    await use(workflowId(workflow))
    if (workflow.scope === 'operate' && !submission.mayOperate)
      throw workflowError('forbidden', `${workflow.name} is for callers with the scope \`operate\``, { field: 'workflow' })
    const { keyId, mayOperate, webhook } = submission
    if (webhook !== undefined) await this.#parts.webhooks.named(webhook, keyId)
    const chosen = this.#device(submission, workflow)
    const requester = { keyId, device: chosen, mayOperate }
    const [{ input, pictures, items }, device] = await Promise.all([completed(this.#parts, workflow, submission.input, requester), chosen])
    return { workflow, input, pictures, items, device }
  }

  async #accept(submission: Submission, id: string, idempotency: Creation['idempotency']): ReturnType<Store['create']> {
    const { keyId, tags, priority, deadlineS, concurrency, webhook, trace } = submission
    // Asked beside what completes the request; `#admit` then has the answers.
    for (const ask of [this.#room, this.#memory]) void ask().catch(() => undefined)
    const { workflow, input, pictures, items, device } = await this.#whole(submission)
    const begun = this.#planned(id, workflowId(workflow), this.first(workflow, input), firstPriority(priority))
    const reserve = reserveOf(workflow, input) + reserveOfItems(items)
    await this.#admit(reserve)
    const reply = await this.#create(
      {
        id,
        workflow: workflowId(workflow),
        input,
        pictures,
        ...begun,
        tags,
        priority: String(priority),
        keyId,
        device,
        fields: { idempotency: idempotency?.key, group: groupText(concurrency), webhook, trace, ...promises(workflow, input) },
        reserve,
        items,
      },
      {
        idempotency,
        deadlineMs: deadlineS === undefined ? undefined : Math.round(deadlineS * 1000),
        counted: await this.#counted(workflow, keyId, shardOf(id)),
      },
    )
    if (reply.created) void this.#opened(id, begun.effects, { device })
    return reply
  }

  /** @throws DarkroomError `workflow.broken` when the machine cannot start on this input */
  first(workflow: Workflow, input: Record<string, unknown>): Transition {
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
   * Writes a session that goes on from a state of another, on the same shard. Returns its id, or that of the one which
   * the idempotency key stands for.
   * @throws DarkroomError `session.unknown`, `session.checkpoint_gone`, `session.idempotency_mismatch`, `limit.*`,
   * `redis.full`, `disk.full`
   */
  async goOn(
    old: Session,
    { keyId, idempotency }: Asker,
    { again, input, pictures, items, about, fields, carried }: GoingOn,
  ): Promise<string> {
    const { workflow } = this.#parts.registry.known(old.workflow)
    const id = newSessionId(shardOf(old.id), Date.now())
    const begun = this.#planned(id, old.workflow, again, firstPriority(old.priority))
    const reserve = reserveOf(workflow, input) + reserveOfItems(items)
    await this.#admit(reserve)
    const known = idempotency && { key: goingOnKey(old, keyId, idempotency.key), bodySha256: idempotency.bodySha256 }
    const reply = await this.#create(
      {
        id,
        workflow: old.workflow,
        input,
        pictures,
        ...begun,
        tags: old.tags,
        priority: String(old.priority),
        keyId,
        device: old.device,
        about,
        fields: {
          begun: JSON.stringify(again.document),
          group: groupText(old.concurrency),
          webhook: old.webhook,
          ...promises(workflow, input),
          idempotency: known?.key,
          ...fields,
        },
        reserve,
        items,
      },
      { carried, idempotency: known, counted: await this.#counted(workflow, keyId, shardOf(id)) },
    )
    if (!reply.created && reply.bodySha256 !== idempotency?.bodySha256) throw mismatch(idempotency?.key ?? '', reply.id)
    if (!reply.created) return reply.id
    void this.#opened(id, begun.effects)
    return id
  }

  /**
   * The session that goes on from `old` and that this request has made before.
   * @throws DarkroomError `session.idempotency_mismatch`
   */
  async madeBefore(old: Session, { keyId, idempotency }: Asker): Promise<string | undefined> {
    const known = idempotency && (await this.#parts.reads.known(goingOnKey(old, keyId, idempotency.key)))
    if (known && known.bodySha256 !== idempotency.bodySha256) throw mismatch(idempotency.key, known.id)
    return known?.id
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
    const { input, pictures, items, document, effects, end } = {
      input: {},
      pictures: [],
      items: undefined,
      document: null,
      effects: noEffects,
      ...begun,
    }
    const workflow = registry.workflow(child.workflow)
    const { sessionId: parent } = splitStepKey(child.stepKey)
    const reply = await this.#create({
      id,
      workflow: child.workflow,
      input,
      pictures,
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
        group: child.group,
        trace: child.trace,
        depth: String(child.depth),
        ...(workflow && !end && promises(workflow, input)),
      },
      reserve: workflow && !end ? reserveOf(workflow, input) + reserveOfItems(items) : 0,
      items,
      end,
    })
    if (reply.created) await this.#opened(id, child.runs ? effects : noEffects, { tellsParent: reply.tellsParent })
  }

  /** A child's first state, or the end of one whose request is refused. */
  async #begin(child: Child): Promise<(Completed & { document: Document; effects: Effects; end: Outcome | undefined }) | { end: Outcome }> {
    const { registry, ownWorkflows } = this.#parts
    // Another process may have it in the content that is used.
    await ownWorkflows.agrees(child.workflow)
    const { workflow } = registry.known(child.workflow)
    try {
      if (child.depth > maxDepth)
        throw workflowError('broken', `session ${child.id} would be a child ${child.depth} levels deep; ${maxDepth} are the most`)
      const whole = await completed(this.#parts, workflow, child.input, child)
      // It continues the work of its parent.
      return { ...whole, ...this.#planned(child.id, child.workflow, this.first(workflow, whole.input), 0) }
    } catch (error) {
      const broken = ensureError(error, 'workflow.broken')
      if (broken.class === 'transient') throw broken
      return { end: failure(broken.toWire()) }
    }
  }

  /** What a session begins with; `end` when that is its end already. */
  #planned(
    id: string,
    workflow: string,
    transition: Transition,
    priority: number,
  ): { document: Document; effects: Effects; end: Outcome | undefined } {
    const { registry, config } = this.#parts
    const effects = plan(id, transition, { operations: registry.operations, shards: config.shards, priority })
    checkSize(workflow, JSON.stringify(transition.document))
    return { document: transition.document, effects, end: outcomeOf(transition) }
  }

  #create(draft: Draft, more: CreationMore = {}): ReturnType<Store['create']> {
    return this.#parts.store.create(creationOf(draft, more))
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

  #opened(id: string, effects: Effects, more: Partial<Pick<Committed, 'tellsParent' | 'device'>> = {}): Promise<void> {
    return this.#parts.afterCommit({ id, effects, tellsParent: false, ...more })
  }

  /**
   * Nothing new is accepted above 80 % of maxmemory, counting what open sessions may still need: what was accepted can
   * always end. Nor when the disk of artifacts or of the private Redis has less room than the floor.
   * @throws DarkroomError `redis.full`, `disk.full`
   */
  async #admit(reserve: number): Promise<void> {
    const memory = await this.#requireRoom(reserve)
    memory.promised += sessionBytes + reserve
  }

  async #requireRoom(reserve: number): Promise<{ promised: number }> {
    await this.#room()
    const memory = await this.#memory()
    if (memory.left < memory.promised + sessionBytes + reserve)
      throw redisError('full', 'what Redis holds and its open sessions may still need is more than 80 % of its maxmemory')
    return memory
  }
}
