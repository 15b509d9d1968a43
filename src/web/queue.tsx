/** Who waits for a device, in the order in which they are let in: seen, moved, paused. */
import { signal } from './signals.ts'
import type { Queue, Session } from '../client/types.ts'
import { attempt, get, may, quietly, request } from './api.ts'
import { note, sessionOf } from './live.ts'
import { Select } from './parts.tsx'
import { Picture } from './picture.tsx'
import { Room, useLook } from './room.tsx'
import { linkTo } from './route.ts'
import { act, allows, pictureOf, titleOf } from './session-view.ts'
import { atTime, inTime, plural } from './words.ts'

type Place = Queue['sessions'][number]

const queue = signal<Queue | null>(null)
const said = signal('')
/** The session that is dragged, and the one that it is over; '': the end of the queue. */
const dragged = signal<string | undefined>(undefined)
const over = signal<string | undefined>(undefined)

/** While somebody looks, ms. */
const lookMs = 1000
/** What is read may be half a second old: what was just moved would jump back. */
const staleMs = 800
let movedAt = Number.NEGATIVE_INFINITY
let moves: Promise<unknown> = Promise.resolve()

async function look(): Promise<void> {
  const told = await get<Queue>('/queue')
  if (dragged.value !== undefined || performance.now() - movedAt < staleMs) return
  queue.value = told
  for (const { session } of told.sessions) if (!sessionOf(session)) quietly(get<Session>(`/sessions/${session}`).then(note))
}

const nameOf = (id: string): string => {
  const session = sessionOf(id)?.value
  return session ? titleOf(session) : id
}

/** Puts a session before another, or behind all of its key. */
async function move(id: string, next: string | undefined): Promise<void> {
  const told = queue.value
  if (id === next || !told) return
  const places = told.sessions.filter(({ session }) => session !== id)
  const own = told.sessions.find(({ session }) => session === id)
  const at =
    next === undefined ? places.findLastIndex(({ keyId }) => keyId === own?.keyId) + 1 : places.findIndex(({ session }) => session === next)
  if (!own || at < 0) return
  movedAt = performance.now()
  queue.value = {
    ...told,
    sessions: places.toSpliced(at, 0, own).map((place, i) => ({ ...place, position: told.sessions[i]?.position ?? i })),
  }
  said.value = `${nameOf(id)} is now ${at + 1} of ${told.sessions.length}`
  const [path, body] = next === undefined ? ['back', undefined] : ['before', { session: next }]
  // One after the other, as they were asked for.
  moves = moves.then(() => attempt(() => request('POST', `/sessions/${id}/${path}`, body)))
  await moves
  movedAt = performance.now()
}

/** Where a session goes by a key: only among those of its own API key. */
function keyed(key: string, id: string): string | undefined | null {
  const places = queue.value?.sessions ?? []
  const own = places.find(({ session }) => session === id)
  const line = places.filter(({ keyId }) => keyId === own?.keyId).map(({ session }) => session)
  const at = line.indexOf(id)
  switch (key) {
    case 'ArrowUp':
      return at > 0 ? line[at - 1] : null
    case 'ArrowDown':
      return at < line.length - 1 ? line[at + 2] : null
    case 'Home':
      return at > 0 ? line[0] : null
    case 'End':
      return at < line.length - 1 ? undefined : null
    default:
      return null
  }
}

const turn = (verb: 'pause' | 'resume', part: object = {}): void =>
  void attempt(async () => (queue.value = await request<Queue>('POST', `/queue/${verb}`, part)))

export function QueueRoom() {
  useLook(look, lookMs)
  const told = queue.value
  if (!told) return null
  const { waiting, running, next, paused, sessions } = told
  const isPaused = paused.some(({ device, class: key }) => device === undefined && key === undefined)
  return (
    <Room
      name="queue"
      title="Queue"
      bar={
        <>
          <span class="count" role="status">
            {plural(waiting, 'session')} in line · {running} on devices{next > 0 && ` · ${next} next`}
          </span>
          {may('operate') && (
            <>
              <button onClick={() => turn(isPaused ? 'resume' : 'pause')}>{isPaused ? 'Resume the queue' : 'Pause the queue'}</button>
              <a class="button" href="/admin/queues">
                Bull Board
              </a>
            </>
          )}
        </>
      }
    >
      {paused.map(({ device, class: key, since }) => (
        <p key={device ?? key ?? ''} class="fault">
          {device ?? (key === undefined ? 'The queue' : `Class ${key}`)} is paused since {atTime(since)}: nobody is let in, what runs goes
          on.{' '}
          {may('operate') && (device ?? key) !== undefined && (
            <button onClick={() => turn('resume', device === undefined ? { class: key } : { device })}>Resume</button>
          )}
        </p>
      ))}
      {sessions.length === 0 && <p class="empty">Nobody waits for a device.</p>}
      <ol class="line">
        {sessions.map((place) => (
          <Row key={place.session} place={place} />
        ))}
        {dragged.value !== undefined && (
          <li class={`end${over.value === '' ? ' over' : ''}`} {...dropOn('')}>
            Behind all others
          </li>
        )}
      </ol>
      <p class="sr" role="status">
        {said.value}
      </p>
    </Room>
  )
}

const priorities = Object.fromEntries(Array.from({ length: 10 }, (_, n) => [n, `priority ${n}`]))

const dropOn = (id: string) => ({
  onDragOver: (event: DragEvent) => {
    if (dragged.value === undefined) return
    event.preventDefault()
    over.value = id
  },
  onDrop: (event: DragEvent) => {
    event.preventDefault()
    const from = dragged.value
    dragged.value = over.value = undefined
    if (from !== undefined) void move(from, id === '' ? undefined : id)
  },
})

function Row({ place: { session: id, position, level, priority, waitedS, why, startsInS } }: { place: Place }) {
  const session = sessionOf(id)?.value
  const name = nameOf(id)
  const mayMove = may('control')
  const keys = (event: KeyboardEvent): void => {
    const to = keyed(event.key, id)
    if (to === null) return
    event.preventDefault()
    void move(id, to)
  }
  return (
    <li
      class={over.value === id ? 'over' : undefined}
      data-id={id}
      draggable={mayMove}
      onDragStart={() => (dragged.value = id)}
      onDragEnd={() => (dragged.value = over.value = undefined)}
      {...dropOn(id)}
    >
      <span class="position">{position}</span>
      {mayMove && (
        <button class="handle plain" aria-label={`Move ${name}`} title="Drag, or arrow keys; Home and End" onKeyDown={keys}>
          <i aria-hidden="true" />
        </button>
      )}
      <a class="thumb" href={linkTo('session', id)} aria-hidden="true" tabIndex={-1}>
        <Picture shown={session && pictureOf(session)} isSmall />
      </a>
      <div class="what">
        <a class="name" href={linkTo('session', id)}>
          {name}
        </a>
        <span class="hint">
          {why} · waits for {inTime(waitedS)}
          {startsInS !== null && ` · about ${inTime(startsInS)} to go`}
        </span>
      </div>
      <label class="priority">
        <span class="sr">Priority of {name}</span>
        <Select
          value={priority}
          disabled={!mayMove}
          title={level > priority ? `${level} with what waiting has added` : undefined}
          of={priorities}
          choose={(value) => void attempt(() => request('POST', `/sessions/${id}/priority`, { priority: Number(value) }).then(look))}
        />
      </label>
      {session && allows(session, 'cancel') && (
        <button aria-label={`Cancel ${name}`} onClick={() => void act(id, 'cancel').then(look)}>
          Cancel
        </button>
      )}
    </li>
  )
}
