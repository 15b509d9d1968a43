/**
 * Parents and children, over shards, through the outbox of each: whatever dies on the way, the entry is looked at
 * again.
 *
 * | entry | of | what happens |
 * | --- | --- | --- |
 * | `child:<step key>:<id>:<workflow>` | the parent | the child is made if it is not there, and follows: runs, pauses, or is cancelled when its effect is closed |
 * | `child:<step key>:items` | the parent | its items are worked off: each is a child, `<step key>.<index>` (`items.ts`) |
 * | `parent:<id>` | a child that has ended | its parent's machine is told, or its item counted, once; a parent that has ended or is gone does not listen |
 *
 * A parent's pauses and resumes are numbered, and a child follows no older number, so a process that was frozen in
 * between changes nothing. A child that is to be cancelled before it is there is made as cancelled: no late process can
 * make it run.
 */
import { type WireError, sessionError } from '../errors.ts'
import { splitStepKey } from '../keys.ts'
import { traceOfChild } from '../trace.ts'
import type { Commits } from './commit.ts'
import type { ItemReads } from './item-reads.ts'
import { Items, itemOf } from './items.ts'
import { childValue, itemsValue } from './plan.ts'
import { cancelled } from './outcome.ts'
import type { AtPoint } from './points.ts'
import type { Reads } from './reads.ts'
import { ended, type Status } from './session.ts'
import type { Store } from './store.ts'
import type { Submissions } from './submit.ts'
import { doneEvent, errorEvent, idOf, type Document } from './transition.ts'
import { measures, useOf } from './usage.ts'

export interface ChildrenParts {
  store: Store
  reads: Reads
  commits: Commits
  submissions: Submissions
  items: ItemReads
  shards: number
  at: AtPoint | undefined
}

export class Children {
  readonly #parts: ChildrenParts
  readonly #items: Items

  constructor(parts: ChildrenParts) {
    this.#parts = parts
    this.#items = new Items({ ...parts, follow: (stepKey, value) => this.follow(stepKey, value) })
  }

  /**
   * Lets a child follow what its parent wants now. `value` is that of its effect.
   * @returns false while the child is still pausing; retry soon
   * @throws DarkroomError `workflow.unknown` in a process that cannot make it
   */
  async follow(stepKey: string, value: string): Promise<boolean> {
    if (value === itemsValue) return this.#items.work(stepKey)
    const { store, reads, submissions } = this.#parts
    const [child, workflow] = value.split(/:(.*)/s) as [string, string]
    const { sessionId, suffix } = splitStepKey(stepKey)
    const open = `open:${suffix}` as const
    for (;;) {
      const parent = await reads.fields(
        sessionId,
        'status',
        open,
        'desired',
        'wish',
        'snapshot',
        'keyId',
        'device',
        'priority',
        'group',
        'trace',
        'depth',
      )
      const isWanted = typeof parent[open] === 'string'
      // In the record under the name that versions before this one know.
      const revision = isWanted ? (parent.wish ?? '0') : ''
      const pauses = isWanted && parent.desired === 'pause'
      let { status } = await reads.fields(child, 'status')
      // Of a parent that was deleted nothing is left to be cancelled.
      if (status === null && parent.status === null) return store.settleChild(stepKey, value, revision, false)
      if (status === null) {
        await submissions.startChild({
          ...((await this.#items.asked(stepKey)) ?? asked(parent.snapshot, suffix)),
          id: child,
          stepKey,
          workflow,
          keyId: parent.keyId,
          device: parent.device,
          priority: parent.priority ?? '5',
          group: parent.group,
          trace: traceOfChild(sessionId, parent.trace),
          depth: Number(parent.depth ?? 0) + 1,
          runs: !pauses,
          ...(!isWanted && { end: cancelled }),
        })
        status = 'queued'
      }
      const verb = !isWanted ? 'cancel' : pauses ? 'pause' : 'resume'
      if (!isWanted || revision !== '0') {
        const reply = await store.control(child, verb, revision)
        if (reply.is !== 'missing') ({ status } = reply)
      }
      const rests = status === 'paused' || isEnded(status)
      if (pauses && !rests) return false
      if (await store.settleChild(stepKey, value, revision, rests)) return true
    }
  }

  /** Tells its parent of a child's end. Told twice, it is the same: the effect is closed by then. */
  async tell(child: string): Promise<void> {
    const { store, reads, commits, at } = this.#parts
    const { status, output, error, parent, invoke, workflow, ...used } = await reads.fields(
      child,
      'status',
      'output',
      'error',
      'parent',
      'invoke',
      'workflow',
      ...usedFields,
    )
    const use = useOf(used)
    if (parent === null || !isEnded(status)) return
    const { sessionId, suffix } = splitStepKey(parent)
    const references = status === 'succeeded' ? await reads.references(child) : []
    if (itemOf(suffix)) {
      await this.#items.end(parent, { value: childValue({ child, workflow: workflow ?? '' }), status, references, use })
      at?.('parent.told', child)
      return store.forget('outbox', `parent:${child}`)
    }
    const cancelled = sessionError('child_cancelled', `child session ${child} was cancelled`)
    const told = status === 'failed' && error !== null ? (JSON.parse(error) as WireError) : cancelled.toWire()
    const result = JSON.parse(output ?? '{}') as unknown
    await commits.apply(sessionId, {
      kind: 'child',
      name: suffix,
      attemptId: '',
      event: status === 'succeeded' ? doneEvent(invoke ?? '', result) : errorEvent(invoke ?? '', told),
      entry: {
        type: 'child.ended',
        key: parent,
        session: child,
        workflow,
        status,
        ...(status === 'succeeded' ? { output: result } : { error: told }),
      },
      // What the child has drawn, its parent names too: it may outlive the child.
      artifacts: references.map((sha256) => ({ group: 'references', sha256 })),
      unpin: false,
      use,
    })
    at?.('parent.told', child)
    await store.forget('outbox', `parent:${child}`)
  }

  /**
   * Parts an ended child from its parent, so that it can be removed: its end was told, and no outbox asks anything of
   * it.
   * @returns false while its parent rests and has yet to take the end in: going on, it would make the child anew
   */
  async part(child: string): Promise<boolean> {
    const { reads } = this.#parts
    const { parent, workflow } = await reads.fields(child, 'parent', 'workflow')
    if (parent === null || workflow === null) return true
    const { sessionId, suffix } = splitStepKey(parent)
    const open = `open:${suffix}` as const
    const isAwaited = async (): Promise<boolean> => (await reads.fields(sessionId, open))[open] !== null
    if (await isAwaited()) {
      await this.tell(child)
      if (await isAwaited()) return false
    }
    return this.follow(parent, childValue({ child, workflow }))
  }
}

const usedFields = measures.map((measure) => `use:${measure}` as const)

const isEnded = (status: string | null): status is Status => ended.has(status as Status)

/** What a parent's document asks of the child of this effect; nothing when it is closed. */
function asked(snapshot: string | null, suffix: string): { invoke: string; input: unknown } {
  const { effects } = JSON.parse(snapshot ?? '{"effects":{}}') as Document
  const [name, effect] = Object.entries(effects).find(([, each]) => each.suffix === suffix) ?? []
  return { invoke: idOf(name ?? ''), input: effect && 'input' in effect ? effect.input : undefined }
}
