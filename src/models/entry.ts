/**
 * A model as the index of a shelf keeps it: where it is, what its headers say, and who it is once it has been hashed.
 */
import { modelError } from './errors.ts'
import type { Drawing } from './drawing.ts'
import type { Identity } from './hash.ts'
import type { Made } from './made.ts'
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
  /** What it is made of, where it is no folder and draws. */
  made?: Made | null
  /** null until it has been hashed. */
  identity: Identity | null
  /** Why it could not be hashed. */
  unhashable: string | null
}

/** A VAE that somebody chose for a model: its name and the SHA-256 of its body. */
export interface VaePin {
  id: string
  bodyHash: string
}

/** A model that pictures can be drawn with, as workflows and workers use it. */
export interface Model extends Drawing {
  /** Name a request uses. */
  id: string
  /** SHA-256 that its pictures follow from, 64 hex digits; null until it has been hashed. */
  bodyHash: string | null
  path: string
  /** What it is annotated with, in place of its own. */
  vae?: VaePin
}

/** The model as a session asks for it. */
export const wantedOf = <Hash extends string | null>({ id, bodyHash, vae }: { id: string; bodyHash: Hash; vae?: VaePin | undefined }) => ({
  id,
  bodyHash,
  ...(vae && { vae }),
})

/** @throws DarkroomError `model.missing` when it does not draw */
export const modelOf = (id: string, { path, identity, drawing }: Entry): Model => {
  if (!drawing) throw modelError('missing', `model ${id} does not draw`)
  return { ...drawing, id, path, bodyHash: identity?.bodyHash ?? null }
}

/** Of one of any kind. @throws DarkroomError `model.missing` when it has not been hashed */
export function pinOf(id: string, { identity }: Entry): { id: string; bodyHash: string } {
  if (!identity) throw modelError('missing', `model ${id} has not been hashed`)
  return { id, bodyHash: identity.bodyHash }
}

/** @throws DarkroomError `model.missing` when it has not been hashed */
export function pinned(id: string, entry: Entry): Model & { bodyHash: string } {
  return { ...modelOf(id, entry), ...pinOf(id, entry) }
}

/** Raised with what detection or an entry says: an index of another number is written anew. */
export const indexFormat = 5
