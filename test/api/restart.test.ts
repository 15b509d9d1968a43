/** Real API processes on one Redis: what a client sees when one is killed and another takes its place. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import { ApiClient, type ServerSentEvent } from '../support/http.ts'
import { nodeArguments } from '../support/program-file.ts'
import { picture, startHarness, type Harness } from './harness.ts'

let h: Harness
const children = new Set<ChildProcess>()
beforeAll(async () => {
  h = await startHarness()
})
afterEach(() => {
  for (const child of children) child.kill('SIGKILL')
})
afterAll(() => h.stop())

async function spawnApi(): Promise<{ client: ApiClient; child: ChildProcess; exited: Promise<unknown[]> }> {
  const env = {
    PATH: process.env['PATH'],
    HOME: process.env['HOME'],
    DARKROOM_DATA: h.config.data,
    DARKROOM_MODELS: h.config.models.join(':'),
    DARKROOM_PORT: '0',
    DARKROOM_LOG: 'error',
    REDIS_URL: h.config.redisUrl,
  }
  const child = spawn(process.execPath, nodeArguments('test/api/api_process.ts'), {
    cwd: root,
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  children.add(child)
  const exited = once(child, 'exit').finally(() => children.delete(child))
  const [url] = (await Promise.race([once(createInterface(child.stdout), 'line'), exited])) as [string]
  return { client: new ApiClient(url), child, exited }
}

it('kill -9 in the middle of a stream: the next API goes on after Last-Event-ID, nothing lost or doubled', async () => {
  const first = await spawnApi()
  const { id } = (await first.client.post('/v1/sessions', picture(), { 'Idempotency-Key': 'kept' })).json
  const seen: ServerSentEvent[] = []
  const cut = (async () => {
    for await (const event of first.client.events(`/v1/sessions/${id}/events`)) if (event.id) seen.push(event)
  })().catch(() => {})
  await first.client.post(`/v1/sessions/${id}/pause`)
  await expect.poll(() => seen.at(-1)?.event).toBe('session.paused')
  first.child.kill('SIGKILL')
  await first.exited
  await cut

  await h.client.post(`/v1/sessions/${id}/resume`)
  const second = await spawnApi()
  await h.client.post(`/v1/sessions/${id}/cancel`)
  const headers = { 'Last-Event-ID': seen.at(-1)?.id ?? '' }
  for await (const event of second.client.events(`/v1/sessions/${id}/events`, { headers })) if (event.id) seen.push(event)
  const history = await h.engine.history(id, 0, 100)
  expect(seen.map((event) => [event.id, event.event])).toEqual(history.map((entry) => [String(entry.id), entry.event.type]))
  expect(history.at(-1)?.event.type).toBe('session.cancelled')
  const again = await second.client.post('/v1/sessions', picture(), { 'Idempotency-Key': 'kept' })
  expect([again.status, again.json.id]).toEqual([200, id])
}, 30_000)

it('SIGTERM ends the streams and then the process, by itself', async () => {
  const { client, child, exited } = await spawnApi()
  const { id } = (await client.post('/v1/sessions', picture())).json
  let events = 0
  const stream = (async () => {
    for await (const _ of client.events(`/v1/sessions/${id}/events`)) events++
  })()
  await expect.poll(() => events).toBe(1)
  const startedAt = performance.now()
  child.kill('SIGTERM')
  await stream
  expect(await exited).toEqual([0, null])
  expect(performance.now() - startedAt).toBeLessThan(3000)
}, 30_000)
