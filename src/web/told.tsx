/**
 * Rooms that the API tells: markup as JSON, asked for again and again, with these parts of the page among its elements.
 * So their words and forms are the API's, and here is only what a browser has to do with them.
 */
import type { ComponentChild, ComponentChildren } from 'preact'
import type { Markup, Session, SessionState, RoomView } from '../client/types.ts'
import { attempt, enter, get, request, viewer } from './api.ts'
import { Drawing } from './drawing.tsx'
import { point } from './fork.tsx'
import { form as written } from './form.ts'
import { sessionOf } from './live.ts'
import { Form, Search } from './parts.tsx'
import { Picture } from './picture.tsx'
import { Sure, useLook } from './room.tsx'
import { go } from './route.ts'
import { pictureOf, type Shown } from './session-view.ts'
import { signal } from './signals.ts'
import { Verbs } from './verbs.tsx'
import { h, useEffect, useRef, useSignal, type Component } from './view.ts'
import { atTime, dayAndTime, inTime, secondsBetween } from './words.ts'

/** What was chosen and written in the room that is open. */
const show = signal('')
const line = signal('')
/** What is shown this once. */
const secret = signal<string | null>(null)
/** Counts what was done to it. */
const changes = signal(0)

/** `changed`: it is asked again when that is another. */
export function Told({ room, id, changed }: { room: string; id: string; changed?: unknown }) {
  const told = useSignal<RoomView | null>(null)
  const latest = useRef('')
  const path = `/rooms/${room}?${new URLSearchParams({ of: id, show: show.value, line: line.value })}`
  useEffect(
    () => () => {
      show.value = line.value = ''
      secret.value = null
    },
    [],
  )
  latest.current = path
  useLook(
    async () => {
      const answer = await get<RoomView>(path)
      if (latest.current === path) told.value = answer
    },
    told.value?.everyMs ?? 2000,
    path,
    changes.value,
    changed,
    told.value?.everyMs,
  )
  return (
    <>
      {secret.value !== null && (
        <div class="secret" role="alert">
          <p>This is the only time it is shown:</p>
          <code>{secret.value}</code>
          <button onClick={() => (secret.value = null)}>I have it</button>
        </div>
      )}
      {told.value && made(told.value.markup)}
    </>
  )
}

const made = (told: Markup): ComponentChild =>
  typeof told === 'object' ? (h(parts[told.is] ?? told.is, told.has ?? null, ...(told.of ?? []).map(made)) as ComponentChild) : told

/** A request that a button or a form sends. */
interface Sent {
  method?: string
  path: string
  body?: object
  wait?: number
  to?: 'session' | 'batches'
}
/** What may be answered, as far as more follows from it than that the room is another. */
interface Answer {
  id?: string
  key?: string
  secret?: string
  image?: { sha256: string }
  error?: { message: string } | null
}

/** Whether it was done. */
async function send({ method = 'POST', path, body, wait, to }: Sent, said?: object): Promise<boolean> {
  const done = await attempt(async () => {
    const answer = await request<Answer | undefined>(method, path, said ?? body, wait ? { Prefer: `wait=${wait}` } : {})
    if (answer?.error) throw new Error(answer.error.message)
    return answer ?? {}
  })
  changes.value++
  if (!done) return false
  secret.value = done.key ?? done.secret ?? secret.value
  // The farm is closed from now on: whoever has made its first key comes in with it.
  if (done.key && viewer.value?.keyId === null) await attempt(() => enter(done.key ?? ''))
  if (done.image) open(`/v1/artifacts/${done.image.sha256}`)
  if (to && done.id) go(to, done.id)
  return true
}

/** What is written in a form, by the names of its fields; what is empty is not said. @throws SyntaxError for JSON that is none */
function readForm(form: HTMLFormElement, body: object = {}): object {
  const said = structuredClone(body) as Record<string, unknown>
  for (const { name, type, value, checked, dataset } of form.elements as unknown as Iterable<HTMLInputElement>) {
    const path = name.split('.')
    const last = path.pop() ?? ''
    const place = path.reduce((around, part) => (around[part] ??= {}) as typeof said, said)
    if (type === 'checkbox' && value === 'on') place[last] = checked
    else if (type === 'checkbox') place[last] = [...((place[last] as string[] | undefined) ?? []), ...(checked ? [value] : [])]
    else if (name && value) place[last] = valueOf(value, dataset['as'] ?? type)
  }
  return said
}

function valueOf(text: string, as: string): unknown {
  if (as === 'number') return Number(text)
  if (as === 'json') return JSON.parse(text)
  return as === 'list' ? text.split(/\s*,\s*/).filter(Boolean) : text.trim()
}

/** A button that sends; it asks once more before what cannot be taken back. */
function Act({ send: what, sure, children, ...more }: { send: Sent; sure?: string; children: string }) {
  const isBusy = useSignal(false)
  const act = async (): Promise<void> => {
    isBusy.value = true
    await send(what)
    isBusy.value = false
  }
  if (sure) return <Sure verb={children} of={sure} act={act} />
  return (
    <button {...more} disabled={isBusy.value} onClick={() => void act()}>
      {children}
    </button>
  )
}

const Send = ({ send: what, ...more }: { send: Sent; children: ComponentChildren }) => (
  <Form {...more} act={async (_, form) => (await attempt(async () => send(what, readForm(form, what.body)))) && !what.method} />
)

/** Buttons of which one is pressed. */
const Choices = ({ label, of }: { label: string; of: readonly string[] }) => (
  <div class="chips" role="group" aria-label={label}>
    {of.map((each) => (
      <button key={each} aria-pressed={(show.value || of[0]) === each} onClick={() => (show.value = each)}>
        {each}
      </button>
    ))}
  </div>
)

const Time = ({ at, isWhole }: { at: string; isWhole?: boolean }) => <time dateTime={at}>{(isWhole ? dayAndTime : atTime)(at)}</time>

/** Seconds in words, or how long it is since then. */
const Span = ({ s, since }: { s?: number; since: string }) => inTime(s ?? Math.max(0, secondsBetween(since, null)))

const ItemPicture = ({ shown, session }: { shown?: Shown; session: string }) => {
  const known = sessionOf(session)?.value
  return <Picture shown={shown ?? (known && pictureOf(known))} isSmall />
}

const Fork = ({ session, state, name, children, ...more }: { session: string; state: SessionState; name: string; children: string }) => (
  <button {...more} onClick={() => (point.value = { session, state, name })}>
    {children}
  </button>
)

const parts = {
  Act,
  Choices,
  Drawing,
  Fork,
  ItemPicture,
  Line: (has: { label: string; placeholder: string }) => <Search {...has} line={line} />,
  Picture,
  Send,
  Span,
  Time,
  Verbs: ({ to, ...has }: { session: Session; to: 'batches' }) => (
    <Verbs {...has} told={(verb, next) => (changes.value++, verb === 'retry' && next && go(to, next.id))} />
  ),
  /** What stands in the form of Draw. */
  Written: (has: object) => <textarea {...has} defaultValue={JSON.stringify(written.value, null, 2)} />,
  Zone: (has: object) => <input {...has} defaultValue={new Intl.DateTimeFormat().resolvedOptions().timeZone} />,
} as unknown as Readonly<Record<string, Component>>
