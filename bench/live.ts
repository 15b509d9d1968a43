/**
 * `live.delayP99Ms`, `live.submitP99Ms`, `live.growthMB`: 500 live connections that show the table and 200 readers of
 * event streams on one API, while 50 sessions a second run. The delay is from the instant that Redis gave an entry to
 * the moment in which a reader has it; the growth is that of the API's memory after it has settled.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { productTimes } from '../src/engine/times.ts'
import { startFarm } from '../test/support/farm.ts'
import { step } from '../test/support/program.ts'
import { inputOf, module } from '../test/support/scripted.ts'
import { figure, type Benchmark } from './figure.ts'
import { timed } from './http.ts'
import type { Delays, Readers, Word } from './live-readers.ts'
import { steady } from './load.ts'
import { quantile, range, rounded } from './statistics.ts'

const sockets = 500
const readers = 200
/** Sessions a second. */
const rate = 50
const warmUpMs = 15_000
const measureMs = 30_000
/** How long a collection may take. */
const collectMs = 1000
/** How long the step of a session takes, ms, as a picture does. */
const stepMs = 2000
/** Of Linux, on every machine that Node runs on. */
const ticksPerS = 100

const residentMB = (pid: number): number => {
  const kB = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Number(kB) / 1000
}

/** Seconds of a processor that a process has used. */
const processorS = (pid: number): number => {
  const [user, system] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ').slice(11, 13) ?? []
  return (Number(user) + Number(system)) / ticksPerS
}

/** What it has when its garbage has been collected. */
async function settledMB(pid: number): Promise<number> {
  process.kill(pid, 'SIGUSR2')
  await delay(collectMs)
  return residentMB(pid)
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
    const { url } = farm.client
    const asked: Readers = { url, sockets, readers, sessionMs: stepMs }
    const reading = fork(fileURLToPath(new URL('live-readers.ts', import.meta.url)), [JSON.stringify(asked)])
    const tell = (word: Word): void => void reading.send(word)
    const heard = async (): Promise<unknown> => {
      const [said] = (await Promise.race([once(reading, 'message'), once(reading, 'exit').then(() => [])])) as unknown[]
      if (said === undefined) throw new Error('void: the readers ended; their own words stand above')
      return said
    }
    try {
      await heard()
      const submits: number[] = []
      const ids: string[] = []
      const source = {
        onEnd: (): void => undefined,
        start: async (n: number): Promise<void> => {
          const { ms, text } = await timed(`${url}/v1/sessions`, 'POST', 202, {
            workflow: 'program',
            input: inputOf(farm, step({ n, ms: stepMs })),
          })
          submits.push(ms)
          const { id } = JSON.parse(text) as { id: string }
          ids.push(id)
          tell({ is: 'session', id })
          source.onEnd()
        },
      }
      await steady(source, rate, warmUpMs)
      const pid = farm.apis[0]?.pid ?? 0
      const before = await settledMB(pid)
      submits.length = 0
      tell({ is: 'measure' })
      const usedBefore = processorS(pid)
      await steady(source, rate, measureMs)
      const used = processorS(pid) - usedBefore
      const after = await settledMB(pid)
      tell({ is: 'over' })
      const told = heard() as Promise<Delays>
      told.catch(() => undefined)
      for (const id of ids) await farm.until(id, 'succeeded', 60_000)
      const { socket, stream } = await told
      if (socket.length < submits.length || stream.length < readers) throw new Error('void: too little was told')
      const [bySocket, byStream] = [quantile(socket, 0.99), quantile(stream, 0.99)]
      const [had, took] = [rounded(before), rounded(used)]
      say(`${submits.length} submits at ${rate}/s, ${range(submits)} ms; the API had ${had} MB, and took ${took} s of a processor`)
      say(
        `p99 of ${socket.length} ends by connection ${rounded(bySocket)} ms, of ${stream.length} entries by stream ${rounded(byStream)} ms`,
      )
      return [
        figure('live.delayP99Ms', Math.max(bySocket, byStream), 'ms', { atMost: 250 }),
        figure('live.submitP99Ms', quantile(submits, 0.99), 'ms', { atMost: 25 }),
        figure('live.growthMB', after - before, 'MB', { atMost: 50 }),
      ]
    } finally {
      reading.kill('SIGKILL')
    }
  },
}
