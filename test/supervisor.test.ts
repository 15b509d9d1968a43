/** How a supervisor starts again what ends: its children are small programs, killed at chosen moments of their life. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { startSupervisor, type SupervisorEvent } from '../src/supervisor.ts'
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
