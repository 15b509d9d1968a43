/** What the headers of a model say, as its entry in the index. */
import { realpath } from 'node:fs/promises'
import { readDrawing } from './drawing.ts'
import type { Entry } from './entry.ts'
import { inspectFolder, type FollowLinks } from './folder.ts'
import type { Found } from './found.ts'
import { formatOf, inspectFile } from './inspect.ts'
import { eachOf, looker, SilentFolder } from './look.ts'
import { withName } from './named.ts'
import { isInside, type Root } from './roots.ts'
import { failed, reasonOf, type Verdict } from './verdict.ts'

/** How long the headers of one model may take, ms. */
const judgeMs = 15_000
/** The last instant that a date can be, ms: file systems know later ones. */
const lastInstant = 8.64e15
/** How many models are looked at at once. */
const width = 3

/** What the walk has found, with the place of its root among the roots. */
export type Ranked = Found & { rank: number }

/** Looks at the headers of some models. Never rejects for what lies there: that is what their entries say. */
export type Judge = (some: readonly Ranked[], roots: readonly Root[]) => Promise<Entry[]>

/** In this thread. */
export const judge: Judge = async (some, roots) => {
  const look = looker(judgeMs)
  // Links may lead to anywhere in the model folders.
  const follow: FollowLinks = async (path) => {
    const real = await realpath(path).catch(() => undefined)
    return real !== undefined && isInside(real, roots) ? real : undefined
  }
  const entries: Entry[] = []
  await eachOf(some, async (found) => void entries.push(await entryOf(found, follow, (act) => look(found.path, act))), width)
  return entries
}

async function entryOf(found: Ranked, follow: FollowLinks, look: <T>(act: () => Promise<T>) => Promise<T>): Promise<Entry> {
  let verdict: Verdict
  try {
    verdict = await look(() => verdictOf(found, follow))
  } catch (error) {
    const { message } = error as Error
    return error instanceof SilentFolder ? unjudged(found, message) : entryWith(found, unreadable(found, message))
  }
  const entry = entryWith(found, verdict)
  if (verdict.reason) return entry
  try {
    const { drawing, obstacle, notes } = await look(() => readDrawing(found.path, verdict))
    return { ...entry, verdict: { ...verdict, notes: [...verdict.notes, ...notes] }, drawing, obstacle }
  } catch (error) {
    return { ...entry, obstacle: (error as Error).message }
  }
}

const unreadable = ({ isFolder }: Found, message: string): Verdict =>
  failed(isFolder ? 'diffusers' : 'safetensors', reasonOf('unreadable', '', message))

const entryWith = (found: Ranked, verdict: Verdict): Entry => ({
  ...found,
  bytes: found.files.reduce((sum, { size }) => sum + size, 0),
  modifiedAt: Math.min(lastInstant, Math.round(Math.max(0, ...found.files.map(({ modifiedMs }) => modifiedMs)))),
  identity: null,
  unhashable: null,
  verdict,
  drawing: null,
  obstacle: verdict.reason?.message ?? null,
})

/** State of an entry that could not be looked at. */
export const unjudgedState = (state: string): string => `not looked at: ${state}`

/** What could not be looked at this time: at the next look at everything it counts as changed. */
export const unjudged = (found: Ranked, message: string): Entry => ({
  ...entryWith(found, unreadable(found, message)),
  state: unjudgedState(found.state),
})

async function verdictOf({ path, real, isFolder, fault }: Found, follow: FollowLinks): Promise<Verdict> {
  if (fault) return failed(isFolder ? 'diffusers' : (formatOf(path) ?? 'safetensors'), fault)
  return isFolder ? inspectFolder(real, follow) : withName(await inspectFile(real), path)
}
