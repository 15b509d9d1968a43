/** The page: one room at a time, and above it where one is and how the farm is. */
import { effect } from '@preact/signals'
import { render } from 'preact'
import { useEffect } from 'preact/hooks'
import { leave, lookWho, notice, viewer } from './api.ts'
import { Devices } from './devices.tsx'
import { Draw } from './draw.tsx'
import { connect, devices, disconnect, isConnected, openSessions } from './live.ts'
import { Login } from './login.tsx'
import { Models } from './models.tsx'
import { linkTo, place, rooms, type RoomName } from './route.ts'
import { SessionRoom } from './session.tsx'
import { Table } from './table.tsx'
import { Workflows } from './workflows.tsx'
import { plural } from './words.ts'
import './page.css'

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
        <nav aria-label="Rooms">
          {(Object.keys(rooms) as RoomName[]).map((room) => (
            <a key={room} href={linkTo(room)} aria-current={place.value.room === room ? 'page' : undefined}>
              {rooms[room]}
            </a>
          ))}
        </nav>
        <Farm />
      </header>
      <main id="main" tabIndex={-1}>
        <Room />
      </main>
      {notice.value !== null && (
        <div class="notice" role="alert">
          <span>{notice.value}</span>
          <button type="button" aria-label="Close the notice" onClick={() => (notice.value = null)}>
            ×
          </button>
        </div>
      )}
    </>
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
        <button type="button" class="plain" onClick={() => void leave()}>
          Leave
        </button>
      )}
    </div>
  )
}

function Room() {
  const { room, id } = place.value
  switch (room) {
    case 'table':
      return <Table />
    case 'session':
      return <SessionRoom key={id} id={id} />
    case 'draw':
      return <Draw />
    case 'devices':
      return <Devices />
    case 'models':
      return <Models />
    case 'workflows':
      return <Workflows id={id} />
  }
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
