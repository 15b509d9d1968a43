/** The worker as `darkroom worker` runs it, with the fake child behind DARKROOM_PYTHON. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import { readWorkers } from '../../src/farm/presence.ts'
import { connect } from '../../src/redis.ts'
import { fakeChild } from '../support/child.ts'
import { writeModel } from '../support/model.ts'
import { nodeArguments } from '../support/program-file.ts'
import { startTestRedis, type TestRedis } from '../support/redis.ts'

let folder: string
let redis: TestRedis
let child: ChildProcess | undefined
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-role-'))
  redis = await startTestRedis()
})
afterEach(async () => {
  child?.kill('SIGKILL')
  await redis.stop()
  await rm(folder, { recursive: true, force: true })
})

/** Starts the role; resolves when it is ready. */
async function startWorker(...fake: string[]): Promise<{ exited: Promise<unknown[]>; messages: Record<string, unknown>[] }> {
  const python = join(folder, 'python')
  await writeFile(python, `#!/bin/sh\nexec ${fakeChild(...fake).join(' ')}\n`)
  await chmod(python, 0o700)
  await writeModel(join(folder, 'models'))
  const env = {
    PATH: process.env['PATH'],
    HOME: process.env['HOME'],
    DARKROOM_DATA: join(folder, 'data'),
    DARKROOM_MODELS: join(folder, 'models'),
    DARKROOM_PYTHON: python,
    DARKROOM_DRAIN_S: '2',
    DARKROOM_LOG: 'silent',
    REDIS_URL: redis.url,
  }
  child = spawn(process.execPath, [...nodeArguments('src/main.ts'), 'worker'], {
    cwd: root,
    env,
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  const exited = once(child, 'exit')
  const messages: Record<string, unknown>[] = []
  child.on('message', (message: Record<string, unknown>) => void messages.push(message))
  await Promise.race([once(child, 'message'), exited])
  expect(messages[0]).toMatchObject({ ready: { id: expect.any(String) } })
  return { exited, messages }
}

it('SIGTERM: it drains and exits 0, also while Redis is away', async () => {
  const { exited } = await startWorker()
  await redis.kill()
  child?.kill('SIGTERM')
  expect(await exited).toEqual([0, null])
})

it('its Python child cannot be started any more: it says why and exits with an error, for its supervisor to start it again', async () => {
  const broken = join(folder, 'broken')
  const { exited, messages } = await startWorker('--die-when', broken)
  await writeFile(broken, '')
  const eye = connect(redis.url, { patience: 'wait' })
  const [record] = await readWorkers(eye)
  eye.disconnect()
  process.kill(record?.childPid ?? 0, 'SIGKILL')
  const [code] = await exited
  expect(code).toBe(1)
  expect(messages.at(-1)).toMatchObject({ failed: { code: 'worker.start_failed' } })
})
