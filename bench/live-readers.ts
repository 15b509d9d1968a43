/**
 * The readers of `live.ts`, a process of their own: reading 150 MB a second must not hold up who submits. It is told
 * sessions as they are submitted, then when to measure and when it is over; it answers with the delays that it saw.
 */
import { get, type IncomingMessage } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { WebSocket } from 'ws'

export interface Readers {
  url: string
  sockets: number
  readers: number
  /** How long a session takes, ms. */
  sessionMs: number
}

export type Word = { is: 'session'; id: string } | { is: 'measure' } | { is: 'over' }

export interface Delays {
  socket: number[]
  stream: number[]
}

/** A page shows so many of the newest. */
const shown = 100
/** Of the live connections so many are listened to frame by frame: reading all would measure the reader. */
const heard = 50

/** The instants of what ended, in the frames of one message, and of entries. */
const endings = /"endedAt":"([^"]+)"/g
const instants = /"at":"([^"]+)"/g

const { url, sockets, readers, sessionMs } = JSON.parse(process.argv[2] ?? '') as Readers
const delays: Delays = { socket: [], stream: [] }
const ids: string[] = []
/** Only what happens from here on is measured. */
let since = Infinity
let isOver = false

process.on('message', (word: Word) => {
  if (word.is === 'session') ids.push(word.id)
  else if (word.is === 'measure') since = Date.now()
  else isOver = true
})

function delaysIn(text: string, pattern: RegExp, into: number[], from: number): void {
  const now = Date.now()
  for (const [, at = ''] of text.matchAll(pattern)) {
    const told = Date.parse(at)
    if (told >= from) into.push(now - told)
  }
}

async function connect(hear: (text: string) => unknown): Promise<WebSocket> {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/live`, { perMessageDeflate: false })
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
  socket.on('message', (bytes: Buffer) => hear(bytes.toString('latin1')))
  socket.send(JSON.stringify({ list: { limit: shown }, devices: true }))
  return socket
}

/** Reads the events of a session to its end. What had happened before is no delay: hence when the stream was open. */
async function follow(id: string): Promise<void> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    get(`${url}/v1/sessions/${id}/events`, { headers: { Accept: 'text/event-stream' } }, resolve).on('error', reject)
  })
  const openedAt = Date.now()
  response.setEncoding('latin1')
  for await (const text of response) delaysIn(String(text), instants, delays.stream, Math.max(since, openedAt))
}

/** Readers begin one after another: else all of them would open their next stream in one moment, again and again. */
async function read(n: number): Promise<void> {
  await delay((n / readers) * sessionMs)
  for (; !isOver; n++) {
    const id = ids.at(-1 - (n % 8))
    await (id === undefined ? delay(50) : follow(id))
  }
}

const open = await Promise.all(
  Array.from({ length: sockets }, (_, i) => connect((text) => i < heard && delaysIn(text, endings, delays.socket, since))),
)
process.send?.('open')
await Promise.all(Array.from({ length: readers }, (_, i) => read(i)))
for (const socket of open) socket.terminate()
process.send?.(delays, () => process.disconnect())
