/** The page: one room at a time, and above it where one is and how the farm is. */
import { leave, lookWho, notice, viewer } from './api.ts'
import { connect, devices, disconnect, isConnected, openSessions } from './live.ts'
import { Login } from './login.tsx'
import type { Other } from './rooms.tsx'
import { linkTo, place, rooms, type RoomName } from './route.ts'
import { effect, signal } from './signals.ts'
import { Table } from './table.tsx'
import { render, useEffect, useRef } from './view.ts'
import { plural } from './words.ts'
import './page.css'

/** The rooms behind the table come as a script of their own. */
const others = signal<{ Other: typeof Other } | 'lost' | undefined>(undefined)

async function load(): Promise<void> {
  if (others.value !== undefined) return
  try {
    others.value = await import('./rooms.tsx')
  } catch {
    others.value = 'lost'
  }
}

/** Once the first room stands, the others come too: the way into one then waits for nothing. */
const settledMs = 1500

function Page() {
  useEffect(() => void lookWho().catch(() => setTimeout(() => location.reload(), 2000)), [])
  if (viewer.value === undefined) return null
  if (viewer.value === null) return <Login />
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => skip(event)}>
        Skip to the room
      </a>
      <header class="top">
        <a class="mark" href={linkTo('table')} aria-label="Darkroom, the light table">
          <i aria-hidden="true" />
          Darkroom
        </a>
        <Rooms />
        <Farm />
      </header>
      <main id="main" tabIndex={-1}>
        <Room />
      </main>
      {notice.value !== null && (
        <div class="notice" role="alert">
          <span>{notice.value}</span>
          <button aria-label="Close the notice" onClick={() => (notice.value = null)}>
            ×
          </button>
        </div>
      )}
    </>
  )
}

/** On a phone they are wider than the screen. */
function Rooms() {
  const current = useRef<HTMLAnchorElement>(null)
  const { room: chosen } = place.value
  useEffect(() => current.current?.scrollIntoView({ block: 'nearest', inline: 'nearest' }), [chosen])
  return (
    <nav aria-label="Rooms">
      {(Object.keys(rooms) as RoomName[]).map((room) => (
        <a key={room} ref={room === chosen ? current : null} href={linkTo(room)} aria-current={room === chosen ? 'page' : undefined}>
          {rooms[room]}
        </a>
      ))}
    </nav>
  )
}

/** A link would change the room. */
function skip(event: Event): void {
  event.preventDefault()
  document.querySelector<HTMLElement>('#main')?.focus()
}

function Farm() {
  const busy = devices.value.filter(({ running }) => running.length > 0).length
  return (
    <div class="farm">
      <span role="status" class={isConnected.value ? 'live' : 'cut'}>
        {isConnected.value
          ? `${openSessions.value} open · ${busy} of ${plural(devices.value.length, 'device')} busy`
          : 'Not connected, trying again'}
      </span>
      {viewer.value?.keyId && (
        <button class="plain" onClick={() => void leave()}>
          Leave
        </button>
      )}
    </div>
  )
}

function Room() {
  const { room, id } = place.value
  useEffect(() => void (room !== 'table' && load()), [room])
  if (room === 'table') return <Table />
  const found = others.value
  if (found === undefined) return <p class="empty">One moment…</p>
  if (found !== 'lost') return <found.Other key={room === 'session' ? id : room} room={room} id={id} />
  return (
    <p class="empty">
      This room did not come. <a href="/">Load the page anew</a>
    </p>
  )
}

/** Connected while the farm lets the viewer in. */
let isIn = false
effect(() => {
  const isViewer = viewer.value !== null && viewer.value !== undefined
  if (isViewer && !isIn) connect()
  if (!isViewer && isIn) disconnect()
  isIn = isViewer
})

const root = document.querySelector('#page')
if (root) render(<Page />, root)
setTimeout(() => void load(), settledMs)
