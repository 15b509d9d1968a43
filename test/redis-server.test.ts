import { existsSync, statSync } from 'node:fs'
import { mkdtemp, rm, unlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { homeFolder } from '../setup/home.mjs'
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

test('runs durably, on a socket that only this user can reach, and keeps what it answered', async () => {
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
  expect(await setting(again, 'appendfsync')).toBe('everysec')
})

test('adopts the one that runs already', async () => {
  const first = await start()
  const second = await start()
  expect(second).toMatchObject({ adopted: true, pid: first.pid, url: first.url })
  await second.stop()
  await first.exited
})

test('ends one whose socket is gone before another opens its files', async () => {
  const first = await start()
  const redis = await client(first.url)
  await redis.set('kept', 'yes')
  await unlink(first.url.slice('unix:'.length))
  const second = await start()
  await first.exited
  expect(second.pid).not.toBe(first.pid)
  expect(await (await client(second.url)).get('kept')).toBe('yes')
})

test('says why it cannot start', async () => {
  await expect(start({ command: '/bin/false' })).rejects.toMatchObject({ code: 'redis.start_failed' })
  await expect(start({ command: join(folder, 'no-such-program') })).rejects.toMatchObject({ code: 'redis.start_failed' })
})

test('kill -9 loses nothing that was answered', async () => {
  const server = await startTestRedis()
  const redis = await client(server.url)
  for (let i = 0; i < 200; i++) await redis.rpush('list', String(i))
  redis.disconnect()
  await server.kill()
  await server.restart()
  const again = await client(server.url)
  expect(await again.llen('list')).toBe(200)
  await server.stop()
  expect(existsSync(server.folder)).toBe(false)
})
