/** A model as somebody asks for it, and whether a shelf has it. */
import type { Entry } from './entry.ts'
import { inOrder } from './listing.ts'
import type { Kind } from './verdict.ts'

/** Without a body hash, whatever has the name. One that draws; with a kind, whatever of that kind there is. */
export interface Wanted {
  id: string
  bodyHash: string | null
  kind?: Kind | undefined
}

/**
 * Whether a shelf has a model: `unhashed`, it may, for it has one of that name whose hash is not known; `other`, it has
 * one of that name, and that is another.
 */
export type Holding = 'yes' | 'unhashed' | 'other' | 'no'

/** Entries of a shelf by what is asked for. */
interface Indexed {
  byHash: Map<string, Entry>
  byName: Map<string, Entry[]>
  /** By kind and name, those that do not draw too. */
  ofKind: Map<string, Entry[]>
}

/** Entries change as a whole: an index lives as long as they do. */
const indexes = new WeakMap<ReadonlyMap<string, Entry>, Indexed>()

export function indexed(entries: ReadonlyMap<string, Entry>): Indexed {
  const known = indexes.get(entries)
  if (known) return known
  const index: Indexed = { byHash: new Map(), byName: new Map(), ofKind: new Map() }
  for (const entry of inOrder(entries)) {
    append(index.ofKind, kindAndName(entry.verdict.kind, entry.name), entry)
    if (!entry.drawing) continue
    if (entry.identity && !index.byHash.has(entry.identity.bodyHash)) index.byHash.set(entry.identity.bodyHash, entry)
    append(index.byName, entry.name, entry)
  }
  indexes.set(entries, index)
  return index
}

function append(map: Map<string, Entry[]>, key: string, entry: Entry): void {
  const same = map.get(key)
  if (same) same.push(entry)
  else map.set(key, [entry])
}

export function holdingOf(entries: ReadonlyMap<string, Entry>, wanted: Wanted): Holding {
  const { byHash, byName, ofKind } = indexed(entries)
  if (wanted.kind !== undefined) {
    const same = ofKind.get(kindAndName(wanted.kind, wanted.id)) ?? []
    if (same.some((entry) => isOf(entry, wanted))) return 'yes'
    if (same.some(({ identity, unhashable }) => identity === null && unhashable === null)) return 'unhashed'
    return same.length > 0 ? 'other' : 'no'
  }
  const named = byName.get(nameOf(wanted.id)) ?? []
  if (wanted.bodyHash === null) return named.length > 0 ? 'yes' : 'no'
  if (byHash.has(wanted.bodyHash)) return 'yes'
  if (named.some(({ identity, unhashable }) => identity === null && unhashable === null)) return 'unhashed'
  return named.length > 0 ? 'other' : 'no'
}

/** Name of a model whose id tells it apart from others of that name. */
export const nameOf = (id: string): string => id.replace(/ \[(?:[0-9a-f]{10}|not hashed)\]$/, '')
export const kindAndName = (kind: Kind, id: string): string => `${kind}\n${nameOf(id)}`
export const isOf = ({ identity }: Entry, { bodyHash }: Wanted): boolean => bodyHash === null || identity?.bodyHash === bodyHash

/** As messages name it. */
export const described = ({ id, bodyHash }: Wanted): string => (bodyHash === null ? id : `${id} with body ${bodyHash.slice(0, 10)}`)
