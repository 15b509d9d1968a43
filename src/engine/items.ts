/**
 * Items: the many child sessions of one session, a window of them at a time. They are recorded beside its document when
 * it is made, and counted by one script, which opens the next as one ends (`redis/moveItems.lua`). So they cost its
 * document and its history nothing, and whoever brings the end of one makes the next.
 */
import { sessionError } from '../errors.ts'
import { chooseShard, newSessionId, splitStepKey } from '../keys.ts'
import type { Commits } from './commit.ts'
import type { ItemReads } from './item-reads.ts'
import { itemsValue } from './plan.ts'
import type { Reads } from './reads.ts'
import type { EndedItem, MovedItems } from './item-record.ts'
import type { Store } from './store.ts'
import { doneEvent, errorEvent, idOf, type Document } from './transition.ts'

export interface ItemsParts {
  store: Store
  reads: Reads
  commits: Commits
  items: ItemReads
  shards: number
  /** Lets a child follow its parent: makes it, if it is not there. */
  follow: (stepKey: string, value: string) => Promise<boolean>
}

/** How many ids are offered where one item has ended: most often one is taken. */
const offered = 2

/** The item that a child's effect stands for, of the effect that works items off; undefined for any other child. */
export function itemOf(suffix: string): { effect: string; index: number } | undefined {
  const [, effect, index] = /^(\d+\.\d+)\.(\d+)$/.exec(suffix) ?? []
  return effect === undefined ? undefined : { effect, index: Number(index) }
}

export class Items {
  readonly #parts: ItemsParts

  constructor(parts: ItemsParts) {
    this.#parts = parts
  }

  /** Opens as many items as may be, whose children are made at once. The script says when nothing is left to do. */
  async work(stepKey: string): Promise<true> {
    const { sessionId } = splitStepKey(stepKey)
    const { 'items:window': window } = await this.#parts.reads.fields(sessionId, 'items:window')
    await this.#move(stepKey, Number(window), undefined)
    return true
  }

  /** Counts the item of an ended child, once, and goes on with the next. */
  async end(stepKey: string, ended: Omit<EndedItem, 'suffix'>): Promise<void> {
    const { sessionId, suffix } = splitStepKey(stepKey)
    await this.#move(`${sessionId}.${itemOf(suffix)?.effect}`, offered, { ...ended, suffix })
  }

  /** What an item asks of its child; undefined where the effect is none of an item. */
  async asked(stepKey: string): Promise<{ invoke: string; input: unknown } | undefined> {
    const { sessionId, suffix } = splitStepKey(stepKey)
    const item = itemOf(suffix)
    return item && { invoke: String(item.index), input: await this.#parts.items.input(sessionId, item.index) }
  }

  async #move(stepKey: string, ids: number, ended: EndedItem | undefined): Promise<void> {
    const { store, shards, follow } = this.#parts
    const { sessionId } = splitStepKey(stepKey)
    const fresh = Array.from({ length: ids }, () => newSessionId(chooseShard(shards, undefined), Date.now()))
    const moved = await store.moveItems(stepKey, fresh, ended)
    if (!moved) return
    // What fails here lies in the outbox.
    await Promise.allSettled(moved.opened.map(({ suffix, value }) => follow(`${sessionId}.${suffix}`, value)))
    if (moved.is !== 'open') await this.#tell(stepKey, moved.is)
  }

  /** Tells the session's machine that its items are over. Told twice, it is the same: the effect is closed by then. */
  async #tell(stepKey: string, is: Exclude<MovedItems['is'], 'open'>): Promise<void> {
    const { store, reads, commits } = this.#parts
    const { sessionId, suffix } = splitStepKey(stepKey)
    const { snapshot, ...counted } = await reads.fields(
      sessionId,
      'snapshot',
      'items:total',
      'items:succeeded',
      'items:failed',
      'items:cancelled',
    )
    const [total, succeeded, failed, cancelled] = Object.values(counted).map(Number)
    const counts = { total, succeeded, failed, cancelled }
    const { effects } = JSON.parse(snapshot ?? '{"effects":{}}') as Document
    const invoke = idOf(Object.keys(effects).find((name) => effects[name]?.suffix === suffix) ?? '')
    const refusal = sessionError('items_failed', `${failed} of ${total} items have failed`, { details: counts }).toWire()
    await commits.apply(sessionId, {
      kind: 'child',
      name: suffix,
      attemptId: '',
      event: is === 'all' ? doneEvent(invoke, counts) : errorEvent(invoke, refusal),
      entry: { type: 'items.ended', key: stepKey, ...counts },
      artifacts: [],
      unpin: false,
    })
    // It is in the session's inbox, if not in its machine.
    await store.forget('outbox', `child:${stepKey}:${itemsValue}`)
  }
}
