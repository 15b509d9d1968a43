/**
 * A model as the index of a shelf keeps it: where it is, what its headers say, and who it is once it has been hashed.
 */
import type { Drawing } from './drawing.ts'
import type { Identity } from './hash.ts'
import type { Verdict } from './verdict.ts'
import type { Found } from './found.ts'

export interface Entry extends Found {
  /** Of its root among the roots of the host: of two with one name, the first root's counts. */
  rank: number
  bytes: number
  /** Of its newest file, milliseconds since 1970. */
  modifiedAt: number
  verdict: Verdict
  drawing: Drawing | null
  /** Why it does not draw; null where it does. */
  obstacle: string | null
  /** null until it has been hashed. */
  identity: Identity | null
  /** Why it could not be hashed. */
  unhashable: string | null
}

/** A model that pictures can be drawn with, as workflows and workers use it. */
export interface Model extends Drawing {
  /** Name a request uses. */
  id: string
  /** SHA-256 that its pictures follow from, 64 hex digits; null until it has been hashed. */
  bodyHash: string | null
  path: string
}

/** Raised with what detection or an entry says: an index of another number is written anew. */
export const indexFormat = 1
