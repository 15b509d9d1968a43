/** What is chosen on the table, and what can be done with all of it at once. */
import { computed, signal } from './signals.ts'
import { may, notice, wordsOf } from './api.ts'
import { sessionOf } from './live.ts'
import { focused } from './room.tsx'
import { linkTo } from './route.ts'
import { allows, perform, tag, tagPattern, verbs, type Verb } from './session-view.ts'
import { Form, textOf } from './parts.tsx'
import { capital, plural } from './words.ts'

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

/** What was asked for and waits for a yes. */
const asked = signal<Verb | 'tag' | undefined>(undefined)

/** Does it to each, a few at a time; those that it was done to are chosen no more. */
async function withEach(ids: readonly string[], what: string, work: (id: string) => Promise<unknown>): Promise<void> {
  asked.value = undefined
  const waiting = [...ids]
  const refusals: string[] = []
  const run = async (): Promise<void> => {
    for (let id = waiting.shift(); id !== undefined; id = waiting.shift()) {
      await work(id).catch((error: unknown) => refusals.push(wordsOf(error)))
      const chosen = new Set(selected.value)
      chosen.delete(id)
      selected.value = chosen
    }
  }
  await Promise.all(Array.from({ length: atOnce }, run))
  if (refusals.length > 0) notice.value = `${what}: ${plural(refusals.length, 'session')} refused. ${refusals[0]}`
}

async function tagAll(said: FormData): Promise<void> {
  const name = textOf(said, 'tag')
  if (name === '') return
  const isOn = !said.has('off')
  await withEach([...selected.value], 'Tag', async (id) => {
    const session = sessionOf(id)?.value
    if (session) await tag(session, name, isOn)
  })
}

export function Selection() {
  const { size } = selected.value
  if (size === 0) return null
  const [one] = able.value.filter(({ verb }) => verb === asked.value)
  const keep = <button onClick={() => (asked.value = undefined)}>Keep</button>
  return (
    <div class="selection" role="region" aria-label="Chosen sessions">
      <strong role="status">{plural(size, 'session')} chosen</strong>
      {one ? (
        <>
          <span>
            {capital(one.verb)} {plural(one.ids.length, 'session')}?
          </span>
          <button class="danger" onClick={() => void withEach(one.ids, capital(one.verb), (id) => perform(id, one.verb))}>
            {capital(one.verb)} {one.ids.length}
          </button>
          {keep}
        </>
      ) : asked.value === 'tag' ? (
        <Form class="verbs" act={tagAll}>
          <input name="tag" required maxLength={64} pattern={tagPattern} aria-label="Tag" placeholder="tag" ref={focused} />
          <button type="submit">Tag {plural(size, 'session')}</button>
          <button type="submit" name="off">
            Take it from {plural(size, 'session')}
          </button>
          {keep}
        </Form>
      ) : (
        <>
          {able.value
            .filter(({ ids }) => ids.length > 0)
            .map(({ verb, ids }) => (
              <button key={verb} onClick={() => (asked.value = verb)}>
                {capital(verb)} {ids.length}
              </button>
            ))}
          {may('control') && <button onClick={() => (asked.value = 'tag')}>Tag {size}</button>}
          {size === 2 && (
            <a class="button" href={linkTo('compare', [...selected.value].join())}>
              Compare
            </a>
          )}
        </>
      )}
      <button class="plain" onClick={() => (selected.value = new Set())}>
        Choose none
      </button>
    </div>
  )
}
