/** How a supervisor starts again what ends: its children are small programs, killed at chosen moments of their life. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startSupervisor, type Supervisor, type SupervisorEvent } from '../src/supervisor.ts'
import { eventually, sleep } from './support/wait.ts'

/** Ready at once; ends with its parent. */
const child = `
process.on('disconnect', () => process.exit(0))
process.on('SIGTERM', () => process.exit(0))
process.send({ ready: { url: 'http://127.0.0.1:1' } })
`

it('starts an API again at once after a long life, however often it is killed, and ever later after short ones', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-supervisor-'))
  await writeFile(join(folder, 'child.mjs'), child)
  const events: SupervisorEvent[] = []
  const of = (is: SupervisorEvent['is']): SupervisorEvent[] => events.filter((event) => event.what === 'api' && event.is === is)
  const supervisor = await startSupervisor({
    // Nobody asks it for anything.
    env: { ...process.env, DARKROOM_DATA: join(folder, 'data'), REDIS_URL: `unix:${join(folder, 'none')}` },
    program: [process.execPath, join(folder, 'child.mjs')],
    workers: 0,
    on: (event) => void events.push(event),
  })
  try {
    const lives = [2200, 0, 0, 0, 2200, 2200, 0]
    for (const [i, ms] of lives.entries()) {
      await eventually(`life ${i + 1}`, () => Promise.resolve(of('ready').length === i + 1))
      await sleep(ms)
      process.kill(of('ready').at(-1)?.pid ?? 0, 'SIGKILL')
      await eventually(`end ${i + 1}`, () => Promise.resolve(of('ended').length === i + 1))
    }
    expect(of('ended').map(({ againMs }) => againMs)).toEqual([0, 200, 400, 800, 0, 0, 200])
  } finally {
    await supervisor.stop()
    await rm(folder, { recursive: true, force: true })
  }
})

/** Writes its process id and arguments to a file; ready at once, or when its turn comes. */
const standing = (file: string): string => `
import { appendFileSync } from 'node:fs'
process.on('disconnect', () => process.exit(0))
process.on('SIGTERM', () => process.exit(0))
const ready = { ready: { url: 'http://127.0.0.1:1', id: 'w' } }
const isStandby = process.argv.includes('--standby')
appendFileSync(${JSON.stringify(file)}, process.argv.at(2) + ' ' + process.pid + (isStandby ? ' standby' : '') + '\\n')
if (isStandby) process.once('message', () => process.send(ready))
else process.send(ready)
`

describe('a worker beside which another stands by', () => {
  let folder: string
  let supervisor: Supervisor
  const events: SupervisorEvent[] = []
  const ready = (): number[] => events.flatMap(({ what, is, pid }) => (what === 'worker 1' && is === 'ready' && pid ? [pid] : []))
  const standbys = async (): Promise<number[]> => {
    const lines = await readFile(join(folder, 'started'), 'utf8').catch(() => '')
    return [...lines.matchAll(/^worker (\d+) standby$/gm)].map(([, pid]) => Number(pid))
  }
  const isAlive = (pid: number): boolean => {
    try {
      return process.kill(pid, 0)
    } catch {
      return false
    }
  }
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'darkroom-standby-'))
    await writeFile(join(folder, 'child.mjs'), standing(join(folder, 'started')))
    supervisor = await startSupervisor({
      env: {
        ...process.env,
        DARKROOM_DATA: join(folder, 'data'),
        REDIS_URL: `unix:${join(folder, 'none')}`,
        DARKROOM_STANDBY: 'always',
      },
      program: [process.execPath, join(folder, 'child.mjs')],
      workers: 1,
      on: (event) => void events.push(event),
    })
  })
  afterAll(async () => {
    await supervisor.stop()
    await rm(folder, { recursive: true, force: true })
  })

  it('is followed by it, again and again, and by a new process where it has ended too', async () => {
    await eventually('one that stands by', async () => (await standbys()).length === 1)
    for (let life = 1; life <= 2; life++) {
      const [next] = (await standbys()).slice(-1)
      process.kill(ready().at(-1) ?? 0, 'SIGKILL')
      await eventually('the next life', () => Promise.resolve(ready().length === life + 1))
      expect(ready().at(-1)).toBe(next)
      await eventually('another one that stands by', async () => (await standbys()).length === life + 1)
    }
    process.kill((await standbys()).at(-1) ?? 0, 'SIGKILL')
    process.kill(ready().at(-1) ?? 0, 'SIGKILL')
    await eventually('a life of its own', () => Promise.resolve(ready().length === 4))
    expect(await standbys()).not.toContain(ready().at(-1))
  })

  it('leaves nothing behind when it stops', async () => {
    await eventually('one that stands by', async () => isAlive((await standbys()).at(-1) ?? 0))
    const pids = [...ready(), ...(await standbys())]
    await supervisor.stop()
    expect(pids.filter(isAlive)).toEqual([])
  })
})
