import { fromPromise, type PromiseActorLogic } from 'xstate'
import type { ItemOrder } from './orders.ts'

/** What a session works off: requests to one workflow, each a child session. They are recorded beside its document. */
export interface Items {
  /** `name@version`. */
  workflow: string
  /** What they have in common, and of each what it has of its own, as JSON. */
  base: Record<string, unknown>
  each: readonly string[]
  /** How many are open at a time. */
  window: number
  /** How many may fail before it is given up; null: all. */
  most: number | null
  order: ItemOrder
  /** How many steps the longest of them takes, for the memory that its history will need. */
  steps: number
}

/** What comes of them. */
export interface ItemsEnd {
  total: number
  succeeded: number
  failed: number
  cancelled: number
}

const sources = new WeakSet<object>()

/**
 * An actor source that works off the items of the session. It ends when all have; or, with `session.items_failed`, when
 * more have failed than may.
 */
export function items(): PromiseActorLogic<ItemsEnd, undefined> {
  const logic = fromPromise<ItemsEnd, undefined>(() => Promise.reject(new Error('items run by themselves, never inside a machine')))
  sources.add(logic)
  return logic
}

export const isItems = (logic: unknown): boolean => typeof logic === 'object' && logic !== null && sources.has(logic)
