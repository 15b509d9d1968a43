import { existsSync, statSync } from 'node:fs'
import { mkdir, mkdtemp, rm, unlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { homeFolder } from '../host/home.mjs'
import { AppendOnlyFile } from '../src/append-only-file.ts'
import { connect, type Redis, untilReady } from '../src/redis.ts'
import { type RedisServer, startRedis } from '../src/redis-server.ts'
import { startTestRedis } from './support/redis.ts'

let folder: string
const servers: RedisServer[] = []
const clients: Redis[] = []
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-redis-server-'))
})
afterEach(async () => {
  for (const client of clients.splice(0)) client.disconnect()
  for (const server of servers.splice(0)) await server.stop()
  await rm(folder, { recursive: true, force: true })
})

const start = async (more: Partial<Parameters<typeof startRedis>[0]> = {}): Promise<RedisServer> => {
  const server = await startRedis({ folder: join(folder, 'redis'), durability: 'standard', home: homeFolder(), ...more })
  servers.push(server)
  return server
}

const client = async (url: string): Promise<Redis> => {
  const redis = connect(url, { patience: 'fail' })
  clients.push(redis)
  await untilReady(redis, 5000)
  return redis
}

const setting = async (redis: Redis, name: string): Promise<unknown> => Object.values((await redis.config('GET', name)) as object).at(-1)

it('runs durably, on a socket that only this user can reach, and keeps what it answered', async () => {
  const first = await start({ durability: 'strict', maxmemory: '64mb' })
  expect(first.adopted).toBe(false)
  const socket = first.url.slice('unix:'.length)
  expect(Buffer.byteLength(socket)).toBeLessThanOrEqual(103)
  expect(statSync(dirname(socket)).mode & 0o777).toBe(0o700)
  const redis = await client(first.url)
  expect(await setting(redis, 'appendonly')).toBe('yes')
  expect(await setting(redis, 'appendfsync')).toBe('always')
  expect(await setting(redis, 'maxmemory-policy')).toBe('noeviction')
  expect(await setting(redis, 'maxmemory')).toBe(String(64 * 1024 * 1024))
  expect(await setting(redis, 'port')).toBe('0')
  await redis.set('kept', 'yes')
  await first.stop()
  expect(existsSync(dirname(socket))).toBe(false)

  const again = await client((await start()).url)
  expect(await again.get('kept')).toBe('yes')
  expect(await setting(again, 'appendfsync')).toBe('no')
})

it('adopts the one that runs already', async () => {
  const first = await start()
  const second = await start()
  expect(second).toMatchObject({ adopted: true, pid: first.pid, url: first.url })
  await second.stop()
  await first.exited
})

it('ends one whose socket is gone before another opens its files', async () => {
  const first = await start()
  const redis = await client(first.url)
  await redis.set('kept', 'yes')
  await unlink(first.url.slice('unix:'.length))
  const second = await start()
  await first.exited
  expect(second.pid).not.toBe(first.pid)
  expect(await (await client(second.url)).get('kept')).toBe('yes')
})

it('says why it cannot start', async () => {
  await expect(start({ command: '/bin/false' })).rejects.toMatchObject({ code: 'redis.start_failed' })
  await expect(start({ command: join(folder, 'no-such-program') })).rejects.toMatchObject({ code: 'redis.start_failed' })
})

it('kill -9 loses nothing that was answered, least of all while a sync of its file runs', async () => {
  const server = await startTestRedis()
  let answered = 0
  for (let round = 0; round < 3; round++) {
    const redis = await client(server.url)
    const write = async (): Promise<void> => {
      for (let n = 1; n > 0; answered = Math.max(answered, n)) n = await redis.incr('written').catch(() => 0)
    }
    const writers = [write(), write(), write(), write()]
    // A Redis that syncs by itself begins each second, and says so while it does.
    const until = performance.now() + 2500
    let syncing = 0
    while (syncing < 3 && performance.now() < until)
      syncing = /aof_pending_bio_fsync:[1-9]/.test(await redis.info('persistence')) ? syncing + 1 : 0
    await server.kill()
    redis.disconnect()
    await Promise.all(writers)
    expect(answered).toBeGreaterThan(100)
    await server.restart()
    expect(Number(await (await client(server.url)).get('written'))).toBeGreaterThanOrEqual(answered)
  }
  await server.stop()
  expect(existsSync(server.folder)).toBe(false)
})

it('what it wrote is on the disk a second later, also what replaced its file', async () => {
  const server = await start()
  const redis = await client(server.url)
  const failures: Error[] = []
  const file = new AppendOnlyFile(join(folder, 'redis'), (error) => failures.push(error))
  try {
    const written = async (): Promise<number> => Number(/aof_current_size:(\d+)/.exec(await redis.info('persistence'))?.[1])
    await redis.set('a', 'x'.repeat(5000))
    const before = await written()
    expect(before).toBeGreaterThan(5000)
    await vi.waitFor(() => expect(file.syncedBytes).toBeGreaterThanOrEqual(before), 5000)
    await redis.set('a', 'x')
    await redis.bgrewriteaof()
    await vi.waitFor(async () => expect(await redis.info('persistence')).toContain('aof_rewrite_in_progress:0'), 5000)
    await redis.set('b', 'y'.repeat(50))
    const after = await written()
    expect(after).toBeLessThan(before)
    await vi.waitFor(() => expect(file.syncedBytes).toBe(after), 5000)
    expect(failures).toEqual([])
  } finally {
    await file.stop()
  }
})

it('a file that cannot be synced is told once', async () => {
  const failures: Error[] = []
  await mkdir(join(folder, 'appendonly.aof', 'not a file'), { recursive: true })
  await writeFile(join(folder, 'appendonlydir'), 'not a folder')
  const file = new AppendOnlyFile(folder, (error) => failures.push(error))
  try {
    await new Promise((resolve) => setTimeout(resolve, 2500))
    expect(failures).toMatchObject([{ code: 'ENOTDIR' }])
  } finally {
    await file.stop()
  }
})
