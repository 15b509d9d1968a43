/**
 * `live.delayP99Ms`, `live.submitP99Ms`, `live.growthMB`: 500 live connections that show the table and 200 readers of
 * event streams on one API, while 50 sessions a second run. The delay is from the instant that Redis gave an entry to
 * the moment in which a reader has it; the growth is that of the API's memory after it has settled.
 */
import { readFileSync } from 'node:fs'
import { get, type IncomingMessage } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { productTimes } from '../src/engine/times.ts'
import { startFarm } from '../test/support/farm.ts'
import { step } from '../test/support/program.ts'
import { inputOf, module } from '../test/support/scripted.ts'
import { figure, type Benchmark } from './figure.ts'
import { timed } from './http.ts'
import { steady } from './load.ts'
import { quantile, range, rounded } from './statistics.ts'

const sockets = 500
const readers = 200
/** Sessions a second. */
const rate = 50
const warmUpMs = 15_000
const measureMs = 30_000
/** How long the step of a session takes, ms, as a picture does. */
const stepMs = 2000
/** A page shows so many of the newest. */
const shown = 100
/** Of Linux, on every machine that Node runs on. */
const ticksPerS = 100
/** Of the live connections so many are listened to frame by frame: reading all would measure the reader. */
const heard = 50

const residentMB = (pid: number): number => {
  const kB = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Number(kB) / 1000
}

/** Seconds of a processor that a process has used. */
const processorS = (pid: number): number => {
  const [user, system] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ').slice(11, 13) ?? []
  return (Number(user) + Number(system)) / ticksPerS
}

/** The instants of what ended, in the frames of one message. */
const endings = /"endedAt":"([^"]+)"/g
const instants = /"at":"([^"]+)"/g

function delaysIn(text: string, pattern: RegExp, into: number[], since: number): void {
  const now = Date.now()
  for (const [, at = ''] of text.matchAll(pattern)) {
    const told = Date.parse(at)
    if (told >= since) into.push(now - told)
  }
}

export const live: Benchmark = {
  figures: ['live.delayP99Ms', 'live.submitP99Ms', 'live.growthMB'],
  async measure(say) {
    await using farm = await startFarm({
      times: productTimes,
      workers: 2,
      module,
      settings: { DARKROOM_HOST_LANE: '96', DARKROOM_LIMIT_STREAMS: '0' },
    })
    const url = farm.client.url
    const delays = { socket: [] as number[], stream: [] as number[] }
    const submits: number[] = []
    const ids: string[] = []
    /** Only what happens from here on is measured. */
    let since = Infinity
    const open = await Promise.all(
      Array.from({ length: sockets }, (_, i) => connect(url, (text) => i < heard && delaysIn(text, endings, delays.socket, since))),
    )
    let isOver = false
    const followed = Promise.all(
      Array.from({ length: readers }, async (_, i) => {
        for (let n = i; !isOver;) {
          const id = ids.at(-1 - (n++ % 8))
          if (id === undefined) await delay(50)
          else await follow(url, id, (text, openedAt) => delaysIn(text, instants, delays.stream, Math.max(since, openedAt)))
        }
      }),
    )
    // Looked at below. Where something else fails first, the API goes away under its readers.
    followed.catch(() => undefined)
    const source = {
      onEnd: (): void => undefined,
      start: async (n: number): Promise<void> => {
        const { ms, text } = await timed(`${url}/v1/sessions`, 'POST', 202, {
          workflow: 'program',
          input: inputOf(farm, step({ n, ms: stepMs })),
        })
        submits.push(ms)
        ids.push((JSON.parse(text) as { id: string }).id)
        source.onEnd()
      },
    }
    await steady(source, rate, warmUpMs)
    const pid = farm.apis[0]?.pid ?? 0
    const before = residentMB(pid)
    const usedBefore = processorS(pid)
    submits.length = 0
    since = Date.now()
    await steady(source, rate, measureMs)
    const growth = residentMB(pid) - before
    const used = processorS(pid) - usedBefore
    isOver = true
    for (const id of ids) await farm.until(id, 'succeeded', 60_000)
    await followed
    for (const socket of open) socket.terminate()
    if (delays.socket.length < heard * 100 || delays.stream.length < readers) throw new Error('void: too little was told')
    const [bySocket, byStream] = [quantile(delays.socket, 0.99), quantile(delays.stream, 0.99)]
    say(
      `${submits.length} submits at ${rate}/s, ${range(submits)} ms; the API has ${rounded(before)} MB, ${rounded(growth)} more at the end, and took ${rounded(used)} s of a processor`,
    )
    say(
      `p99 of ${delays.socket.length} ends by socket ${rounded(bySocket)} ms, of ${delays.stream.length} entries by stream ${rounded(byStream)} ms`,
    )
    return [
      figure('live.delayP99Ms', Math.max(bySocket, byStream), 'ms', { atMost: 250 }),
      figure('live.submitP99Ms', quantile(submits, 0.99), 'ms', { atMost: 25 }),
      figure('live.growthMB', growth, 'MB', { atMost: 50 }),
    ]
  },
}

async function connect(url: string, hear: (text: string) => unknown): Promise<WebSocket> {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/live`, { perMessageDeflate: false })
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
  socket.on('message', (bytes: Buffer) => hear(bytes.toString('latin1')))
  socket.send(JSON.stringify({ list: { limit: shown }, devices: true }))
  return socket
}

/** Reads the events of a session to its end. What had happened before is no delay: hence when the stream was open. */
async function follow(url: string, id: string, hear: (text: string, openedAt: number) => void): Promise<void> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    get(`${url}/v1/sessions/${id}/events`, { headers: { Accept: 'text/event-stream' } }, resolve).on('error', reject)
  })
  const openedAt = Date.now()
  response.setEncoding('latin1')
  for await (const text of response) hear(String(text), openedAt)
}
