/** What is chosen on the table, and what can be done with all of it at once. */
import { computed, signal } from '@preact/signals'
import { notice, wordsOf } from './api.ts'
import { sessionOf } from './live.ts'
import { allows, perform, verbNames, verbs, type Verb } from './session-view.ts'
import { plural } from './words.ts'

export const selected = signal<ReadonlySet<string>>(new Set())
/** Where a range begins. */
let anchor: string | undefined
/** Requests under way at once. */
const atOnce = 6

/** Chooses one, or with `toHere` all from the one that was chosen before. */
export function toggle(id: string, toHere: boolean, order: readonly string[]): void {
  const chosen = new Set(selected.value)
  const [from, to] = [order.indexOf(anchor ?? id), order.indexOf(id)].toSorted((a, b) => a - b)
  if (toHere && from !== undefined && from >= 0) for (const each of order.slice(from, (to ?? from) + 1)) chosen.add(each)
  else if (!chosen.delete(id)) chosen.add(id)
  anchor = id
  selected.value = chosen
}

/** Chosen sessions by what they allow. */
const able = computed(() => {
  const sessions = [...selected.value].flatMap((id) => sessionOf(id)?.value ?? [])
  return verbs.map((verb) => ({ verb, ids: sessions.filter((session) => allows(session, verb)).map(({ id }) => id) }))
})

const asked = signal<Verb | undefined>(undefined)

async function performAll(verb: Verb, ids: readonly string[]): Promise<void> {
  asked.value = undefined
  const waiting = [...ids]
  const refusals: string[] = []
  const run = async (): Promise<void> => {
    for (let id = waiting.shift(); id !== undefined; id = waiting.shift()) {
      await perform(id, verb).catch((error: unknown) => refusals.push(wordsOf(error)))
      const chosen = new Set(selected.value)
      chosen.delete(id)
      selected.value = chosen
    }
  }
  await Promise.all(Array.from({ length: atOnce }, run))
  if (refusals.length > 0) notice.value = `${verbNames[verb]}: ${plural(refusals.length, 'session')} refused. ${refusals[0]}`
}

export function Selection() {
  if (selected.value.size === 0) return null
  const [one] = able.value.filter(({ verb }) => verb === asked.value)
  return (
    <div class="selection" role="region" aria-label="Chosen sessions">
      <strong role="status">{plural(selected.value.size, 'session')} chosen</strong>
      {one ? (
        <>
          <span>
            {verbNames[one.verb]} {plural(one.ids.length, 'session')}?
          </span>
          <button type="button" class="danger" onClick={() => void performAll(one.verb, one.ids)}>
            {verbNames[one.verb]} {one.ids.length}
          </button>
          <button type="button" onClick={() => (asked.value = undefined)}>
            Keep
          </button>
        </>
      ) : (
        able.value
          .filter(({ ids }) => ids.length > 0)
          .map(({ verb, ids }) => (
            <button
              key={verb}
              type="button"
              onClick={() => (verb === 'cancel' || verb === 'delete' ? (asked.value = verb) : void performAll(verb, ids))}
            >
              {verbNames[verb]} {ids.length}
            </button>
          ))
      )}
      <button type="button" class="plain" onClick={() => (selected.value = new Set())}>
        Choose none
      </button>
    </div>
  )
}
