/**
 * What commits have asked for, and is still to be done: one entry each in the outbox of a shard, written by the commit
 * itself.
 *
 * | entry | what is done | leaves the outbox |
 * | --- | --- | --- |
 * | `step:<step key>` | the step is placed, its job lies in a queue | when the step is taken or closed |
 * | `undo:<session>` | what its steps have done is undone, by a session of its own | when that session is made |
 * | `inbox:<session>` | the events that had to wait are applied | with the last of them |
 * | `child:<step key>:<id>:<workflow>` | the child is made, and follows its parent (`children.ts`) | when it has followed |
 * | `child:<step key>:items` | its items are worked off (`items.ts`) | when as many are open as may be |
 * | `parent:<id>` | the parent is told of the end | when it was told |
 *
 * Right after a commit its process does this at once; the sweep of any process does what is still there when it falls
 * due.
 */
import type { Config } from '../config.ts'
import { deviceError } from '../domains/device/errors.ts'
import { DarkroomError } from '../errors.ts'
import { queues, shardOf, shardOfMember, splitStepKey } from '../keys.ts'
import type { Logger } from '../log.ts'
import type { Admission } from './admission.ts'
import type { Children } from './children.ts'
import type { Commits, Committed } from './commit.ts'
import type { Dispatcher } from './dispatch.ts'
import type { Lines } from './lines.ts'
import { modelWord } from './nearness.ts'
import { needsOf, type Waiting } from './placement.ts'
import { childValue, itemsValue, type PlannedStep } from './plan.ts'
import type { AtPoint } from './points.ts'
import type { Reads, StepRecord } from './reads.ts'
import type { Registry } from './registry.ts'
import type { Store } from './store.ts'
import type { Times } from './times.ts'
import type { Undoings } from './undoing.ts'

export interface OutboxParts {
  store: Store
  reads: Reads
  registry: Registry
  commits: Commits
  children: Children
  undoings: Undoings
  dispatcher: Dispatcher
  lines: Lines
  admission: Admission
  config: Pick<Config, 'classWaitS'>
  times: Times
  log: Logger
  at: AtPoint | undefined
}

/** How the sweep looks at an entry. */
export interface Look {
  /** When it looks again at a step whose job lies in its queue. */
  againMs: number
  /** What workers publish may be gone only because Redis was. */
  isInGrace(): boolean
}

export class Outbox {
  readonly #parts: OutboxParts

  constructor(parts: OutboxParts) {
    this.#parts = parts
  }

  /** Handles at once what a commit has just put here. Never throws: what fails is left to the sweep. */
  async committed({ id, effects, tellsParent, device }: Committed): Promise<void> {
    const { children, log } = this.#parts
    try {
      await Promise.all([
        this.#opened(id, effects.steps, device),
        ...effects.sessions.map((planned) => children.follow(`${id}.${planned.suffix}`, childValue(planned))),
        ...effects.items.map(({ suffix }) => children.follow(`${id}.${suffix}`, itemsValue)),
      ])
    } catch (error) {
      log.warn({ session: id, err: error }, 'dispatch left to the sweep')
    }
    if (tellsParent)
      await children.tell(id).catch((error: unknown) => log.warn({ session: id, err: error }, 'a parent is told by the sweep'))
  }

  /** Handles an entry that has fallen due. */
  async due(member: string, look: Look): Promise<void> {
    const [kind, name] = member.split(/:(.*)/s) as [string, string]
    this.#parts.at?.('outbox.before', splitStepKey(`${name}.`).sessionId)
    const isDone = await this.#handle(kind, name, member, look)
    if (!isDone) await this.#leave(member)
  }

  /** False where another process has to look, or this one again soon. */
  async #handle(kind: string, name: string, member: string, look: Look): Promise<boolean> {
    const { commits, children, undoings } = this.#parts
    switch (kind) {
      case 'inbox':
        // The commit that empties the inbox, or ends the session, takes the member out.
        return commits.drainInbox(name)
      case 'undo':
        await undoings.begin(name)
        return true
      case 'parent':
        await children.tell(name)
        return true
      case 'child': {
        const [, stepKey, value] = /^([^:]+):(.*)$/s.exec(name) as unknown as [string, string, string]
        return children.follow(stepKey, value).catch(unlessCode('workflow.unknown', () => false))
      }
      default:
        return this.#waiting(name, member, look)
    }
  }

  /**
   * Looked at again soon, here or by a process that has the workflow, at a moment of chance: one without it that came
   * back at its own pace might always be the first.
   */
  async #leave(member: string): Promise<void> {
    const { store, reads, times } = this.#parts
    await store.postpone(member, (await reads.now(shardOfMember(member))) + Math.round(2 * times.sweepMs * Math.random()))
  }

  // ---- steps ----

  /** Steps that a commit has just opened. */
  async #opened(id: string, steps: readonly PlannedStep[], device: string | null | undefined): Promise<void> {
    if (steps.length === 0) return
    const { admission, registry, dispatcher } = this.#parts
    const isOnDevice = steps.some((step) => step.lane === 'gpu')
    const session = isOnDevice ? await this.#whereabouts(id, device) : anywhere
    let waits = false
    await Promise.all(
      steps.map(async ({ suffix, step: name, lane, priority, input }) => {
        const step = { ...fresh, stepKey: `${id}.${suffix}`, name, lane, priority }
        // Every worker takes from one queue what needs nothing of it.
        if (lane === 'host' && !registry.operations[name]?.needs) return dispatcher.addHost(step)
        const needs = needsOf(registry.operations, name, input)
        if (!needs) return
        const waiting = { ...step, ...needs, ...session, waitsInLine: session.admitted === null, avoid: null }
        const placement = await dispatcher.place(waiting)
        if ('queue' in placement) waits = (await this.#enter(waiting, placement.queue, 0, session.admitted)) || waits
      }),
    )
    if (waits) await admission.wake()
  }

  /** What decides where a session's steps on the device go; one that has just come to be was nowhere yet. */
  async #whereabouts(id: string, device: string | null | undefined): Promise<Whereabouts> {
    if (device !== undefined) return { ...anywhere, device }
    return this.#parts.reads.fields(id, 'exactnessKey', 'lastWorker', 'device', 'admitted')
  }

  /** A step that waits, perhaps for long. False in a process that does not have its operation. */
  async #waiting(stepKey: string, member: string, look: Look): Promise<boolean> {
    const { store, reads, commits, dispatcher, config, times } = this.#parts
    const record = await reads.step(stepKey)
    if (!record) {
      await store.forget('outbox', member)
      return true
    }
    // The attempt that took it took the entry out; if it is there again by now, it is for the next dispatch.
    if (record.state !== 'open') return true
    const now = await reads.now(shardOf(stepKey))
    const again = async (ms: number): Promise<true> => {
      await store.postpone(member, now + ms)
      return true
    }
    const refuse = async (refusal: DarkroomError): Promise<true> => {
      await commits.refuse(stepKey, record, refusal)
      return true
    }
    const step = await this.#described(stepKey, record, now).catch(unlessCode('workflow.broken', (error) => error))
    if (!step) return false
    if (step instanceof DarkroomError) return refuse(step)
    const placement = await dispatcher.place(step)
    if ('over' in placement) return look.isInGrace() ? again(times.nowhereMs) : refuse(placement.over)
    if (record.lane === 'control' && record.queue !== '' && now - record.placedAt > times.commandMs) {
      const late = `worker ${step.target?.worker} did not take ${record.name} within ${times.commandMs / 1000} s`
      return refuse(deviceError('not_ready', late))
    }
    if ('nowhere' in placement) {
      const nowhereMs = await store.waits(stepKey, placement.nowhere)
      if (placement.elsewhere && nowhereMs > config.classWaitS * 1000 && !step.isStrict) await this.#move(step)
      return again(times.nowhereMs)
    }
    await this.#enter(step, placement.queue, now, step.admitted)
    return again(placement.isAffinity ? times.affinityLookMs : look.againMs)
  }

  /**
   * Its job goes to the queue; on a device, that of a session which was not let in waits in line. Returns whether it
   * does.
   */
  async #enter(step: Waiting, queue: string, now: number, admitted: string | null): Promise<boolean> {
    const { dispatcher, lines } = this.#parts
    const waits = step.lane === 'gpu' && admitted === null
    const is = waits ? await lines.join(step.stepKey, step.dispatch, queue, modelWord(step.models)) : 'admitted'
    if (is === 'admitted') await dispatcher.enqueue(step, queue, now)
    return is === 'ok'
  }

  /**
   * An open step with what decides where it may run; undefined in a process that does not have its operation. @throws
   * `workflow.broken`
   */
  async #described(stepKey: string, record: StepRecord, now: number): Promise<Described | undefined> {
    const { reads, registry, commits, times } = this.#parts
    const { dispatch, name, lane, priority, queue, placedAt } = record
    const base = { stepKey, dispatch, name, lane, priority, queue, placedAt, ...anywhere, avoid: null, version: '', isStrict: true }
    if (lane === 'host' && !registry.operations[name]?.needs) return { ...base, models: [], target: null }
    const { sessionId } = splitStepKey(stepKey)
    const at = await reads.fields(
      sessionId,
      'version',
      'snapshot',
      'workflow',
      'exactnessKey',
      'lastWorker',
      'device',
      'strict',
      'admitted',
    )
    const { version, snapshot, workflow, exactnessKey, device, admitted } = at
    if (version === null || snapshot === null || workflow === null) return undefined
    const { effects } = commits.document(sessionId, { version, snapshot, workflow })
    const effect = Object.values(effects).find((open) => `${sessionId}.${open.suffix}` === stepKey)
    const needs = effect && 'step' in effect ? needsOf(registry.operations, name, effect.input) : undefined
    if (!needs) return undefined
    if (lane !== 'gpu') return { ...base, ...needs }
    const mayWaitForWorker = queue === '' || (queues.isDevice(queue) && now - placedAt <= times.affinityMs)
    const lastWorker = mayWaitForWorker ? at.lastWorker : null
    const near = mayWaitForWorker && queues.isDevice(queue) ? queue : null
    const avoid = mayWaitForWorker && admitted !== null ? record.avoid : null
    return {
      ...base,
      ...needs,
      exactnessKey,
      device,
      lastWorker,
      near,
      avoid,
      admitted,
      waitsInLine: admitted === null,
      version,
      isStrict: at.strict !== null,
    }
  }

  /** No worker of the pinned class came: the session begins again, from encode, on another. */
  async #move({ stepKey, version, exactnessKey }: Waiting & { version: string }): Promise<void> {
    await this.#parts.commits.apply(splitStepKey(stepKey).sessionId, {
      kind: 'event',
      // The same class may be lost again later: another version, another event.
      name: `class.lost:${exactnessKey}:${version}`,
      attemptId: '',
      event: { type: 'class.lost' },
      entry: {
        type: 'session.moved',
        from: exactnessKey,
        note: `no worker of hardware class ${exactnessKey} came; the picture begins again on another`,
      },
      artifacts: [],
      unpin: true,
    })
  }
}

/** What a session's earlier steps say of the place of the next one, where they say nothing. */
const anywhere: Whereabouts = { exactnessKey: null, lastWorker: null, device: null, admitted: null }

type Whereabouts = Record<'exactnessKey' | 'lastWorker' | 'device' | 'admitted', string | null>

/** A step with what decides where it may run, and the queue that its session was let in to. */
type Described = Waiting & { version: string; isStrict: boolean; admitted: string | null }

/** A step before its first job. */
const fresh = { dispatch: 1, queue: '', placedAt: 0 }

/** Handles one code, and throws whatever else was thrown. */
const unlessCode =
  <T>(code: string, answer: (error: DarkroomError) => T) =>
  (error: unknown): T => {
    if (error instanceof DarkroomError && error.code === code) return answer(error)
    throw error
  }
