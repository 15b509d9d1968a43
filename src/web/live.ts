/**
 * What the page shows of the farm: one WebSocket tells it, and after a cut it asks for all that it missed. Nothing of a
 * session lives in the page alone.
 */
import { computed, signal, type Signal } from './signals.ts'
import type { LiveDevice, LiveFrame, Progress, Session, SessionEvent, SessionPage } from '../client/types.ts'
import { get, lookWho, viewer } from './api.ts'

export type Entry = Pick<SessionEvent, 'id' | 'type' | 'data'>

/** What a session's card shows. */
export type SessionSignal = Signal<Session>

export const isConnected = signal(false)
export const devices = signal<readonly LiveDevice[]>([])
/** Newest first. */
export const ids = signal<readonly string[]>([])
/** Where the list goes on; null at its end. */
const next = signal<string | null>(null)
export const hasMore = computed(() => next.value !== null)
/** History of the session that is looked at. */
export const entries = signal<readonly Entry[]>([])

const records = new Map<string, SessionSignal>()
let followed: string | undefined
let socket: WebSocket | undefined
let waitMs = 250

const pageSize = 200
const longestWaitMs = 4000
const shutOut = 4401

export const sessionOf = (id: string): SessionSignal | undefined => records.get(id)
export const openSessions = computed(() => ids.value.reduce((count, id) => count + (records.get(id)?.value.endedAt === null ? 1 : 0), 0))

/** Follows the history of one session in place of the one before. */
export function follow(id: string | undefined): void {
  if (id === followed) return
  followed = id
  entries.value = []
  ask()
}

/** A session as an answer has it; older ones than that which is shown change nothing. */
export function note(session: Session): void {
  const known = records.get(session.id)
  if (!known) records.set(session.id, signal(session))
  else if (session.version >= known.value.version) known.value = session
}

export function connect(): void {
  socket = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/v1/live`)
  socket.addEventListener('open', () => {
    isConnected.value = true
    waitMs = 250
    ask()
  })
  socket.addEventListener('message', ({ data }: MessageEvent<string>) => (JSON.parse(data) as LiveFrame[]).forEach(take))
  socket.addEventListener('close', ({ code }) => {
    isConnected.value = false
    // A key that is refused is no connection that was cut: the page asks for another one, or goes on with a new one.
    if (code === shutOut) return void again()
    setTimeout(() => void again(), waitMs)
    waitMs = Math.min(2 * waitMs, longestWaitMs)
  })
}

export function disconnect(): void {
  ids.value = []
  records.clear()
  devices.value = []
}

async function again(): Promise<void> {
  await lookWho().catch(() => undefined)
  if (viewer.value === null) return
  connect()
}

function ask(): void {
  if (socket?.readyState !== WebSocket.OPEN) return
  const sessions = followed === undefined ? {} : { [followed]: entries.value.at(-1)?.id ?? 0 }
  socket.send(JSON.stringify({ list: { limit: pageSize }, sessions, devices: true }))
}

function take(frame: LiveFrame): void {
  switch (frame.type) {
    case 'list':
      void refill(frame.sessions, frame.next, ids.value.length)
      break
    case 'session':
      note(frame.session)
      insert(frame.session)
      break
    case 'progress':
      advance(frame.id, frame.progress)
      break
    case 'gone':
      drop(frame.id)
      break
    case 'event':
      if (frame.session === followed && frame.id > (entries.value.at(-1)?.id ?? 0))
        entries.value = [...entries.value, { id: frame.id, type: frame.event.type, data: frame.event }]
      break
    case 'devices':
      devices.value = frame.devices
      break
    case 'problem':
      throw new Error(frame.problem.detail)
  }
}

function advance(id: string, progress: Progress): void {
  const known = records.get(id)
  if (known) known.value = { ...known.value, progress }
}

/** Takes a session out of what is shown. */
export function drop(id: string): void {
  records.delete(id)
  if (ids.value.includes(id)) ids.value = ids.value.filter((each) => each !== id)
}

const isBefore = (a: Session, b: Session): boolean => a.createdAt > b.createdAt || (a.createdAt === b.createdAt && a.id > b.id)

function insert(session: Session): void {
  if (ids.value.includes(session.id)) return
  const at = ids.value.findIndex((id) => {
    const other = records.get(id)?.value
    return other !== undefined && isBefore(session, other)
  })
  // Behind the end of what is loaded it comes with its page.
  if (at === -1 && next.value !== null) return
  ids.value = at === -1 ? [...ids.value, session.id] : ids.value.toSpliced(at, 0, session.id)
}

/** The list anew, as long as it was before: whoever has scrolled far stays where he is. */
async function refill(sessions: readonly Session[], cursor: string | null, wanted: number): Promise<void> {
  const all = [...sessions]
  let goesOn = cursor
  while (goesOn !== null && all.length < wanted) {
    const page = await pageAfter(goesOn).catch(() => undefined)
    if (!page) break
    all.push(...page.sessions)
    goesOn = page.next
  }
  all.forEach(note)
  ids.value = [...new Set(all.map(({ id }) => id))]
  next.value = goesOn
}

const pageAfter = (cursor: string): Promise<SessionPage> => get(`/sessions?limit=${pageSize}&cursor=${cursor}`)

let isLoading = false
/** The next page of older sessions. */
export async function loadMore(): Promise<void> {
  if (isLoading || next.value === null) return
  isLoading = true
  try {
    const page = await pageAfter(next.value)
    page.sessions.forEach(note)
    ids.value = [...new Set([...ids.value, ...page.sessions.map(({ id }) => id)])]
    next.value = page.next
  } finally {
    isLoading = false
  }
}
