/**
 * The models of several shelves in one list: what is the same model is one row, what is another has a name of its own.
 */
import type { Annotation } from './annotations.ts'
import type { Entry } from './entry.ts'
import type { ShelfCopy } from './shelf.ts'

/** One model of the farm. */
export interface Listed {
  /** What a request names it by: its name; where another one has that, with the first ten digits of its body hash. */
  id: string
  /** On the first shelf that has it. */
  entry: Entry
  bodyHash: string | null
  /** Where it is; `entry` of each shelf. */
  holders: { shelf: string; entry: Entry }[]
  /** What a search looks through, in lower case. */
  text: string
  /** What people say of it. */
  annotation: Annotation | undefined
}

/** Such as draw before such as are understood before the others. */
const rank = ({ drawing, verdict }: Entry): number => (drawing ? 0 : verdict.reason ? 2 : 1)

/** `copies` in the order in which their names count; `annotationOf` by body hash. */
export function listing(
  copies: readonly ShelfCopy[],
  annotationOf: (bodyHash: string | null) => Annotation | undefined = () => undefined,
): { listed: readonly Listed[]; byId: ReadonlyMap<string, Listed[]> } {
  const byName = new Map<string, Listed[]>()
  for (const { record, entries } of copies) {
    for (const entry of inOrder(entries)) {
      const key = `${entry.verdict.kind}\n${entry.name}`
      const same = byName.get(key) ?? []
      if (same.length === 0) byName.set(key, same)
      add(same, record.id, entry)
    }
  }
  const listed = [...byName.values()].flatMap((same) => {
    const ranked = same.toSorted((a, b) => rank(a.entry) - rank(b.entry))
    for (const [i, each] of ranked.entries()) if (i > 0) each.id = `${each.entry.name} [${each.bodyHash?.slice(0, 10) ?? 'not hashed'}]`
    for (const each of ranked) annotate(each, annotationOf(each.bodyHash))
    return ranked
  })
  listed.sort((a, b) => (a.id === b.id ? order(a.entry.verdict.kind, b.entry.verdict.kind) : order(a.id, b.id)))
  const byId = new Map<string, Listed[]>()
  for (const each of listed)
    byId.set(
      each.id,
      [...(byId.get(each.id) ?? []), each].toSorted((a, b) => rank(a.entry) - rank(b.entry)),
    )
  return { listed, byId }
}

/** Entries of a shelf in the order in which their names count. */
export const inOrder = (entries: ReadonlyMap<string, Entry>): Entry[] =>
  [...entries.values()].toSorted((a, b) => a.rank - b.rank || order(a.path, b.path))

const order = (a: string, b: string): number => (a < b ? -1 : 1)

function add(same: Listed[], shelf: string, entry: Entry): void {
  const bodyHash = entry.identity?.bodyHash ?? null
  const isSame = ({ bodyHash: other, holders, entry: { bytes } }: Listed): boolean =>
    bodyHash !== null && other !== null
      ? bodyHash === other
      : // Not told apart yet: taken for one model on two hosts, and for two on one.
        bytes === entry.bytes && !holders.some((holder) => holder.shelf === shelf)
  const known = same.find(isSame)
  if (!known) {
    const { title, tags = [], triggerWords = [] } = entry.verdict.metadata
    const text = [entry.name, title ?? '', ...tags, ...triggerWords].join('\n').toLowerCase()
    same.push({ id: entry.name, entry, bodyHash, holders: [{ shelf, entry }], text, annotation: undefined })
    return
  }
  known.holders.push({ shelf, entry })
  known.bodyHash ??= bodyHash
}

function annotate(listed: Listed, annotation: Annotation | undefined): void {
  if (!annotation) return
  listed.annotation = annotation
  listed.text = [listed.text, annotation.title, ...annotation.tags, annotation.notes].join('\n').toLowerCase()
}
