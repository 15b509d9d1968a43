import { appendFileSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { mkdir, mkdtemp, rename, rm, unlink, writeFile } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { spawnSync } from 'node:child_process'
import { homeFolder, root } from '../../host/home.mjs'
import { AppendOnlyFile } from '../../src/append-only-file.ts'
import { connect, type Redis, untilReady } from '../../src/redis.ts'
import { repairRedis, type RedisServer, startRedis } from '../../src/redis-server.ts'
import { canUnshare, ownProcesses } from '../support/containers.ts'
import { startTestRedis } from '../support/redis.ts'

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

it('is alone in its folder, also where nobody sees its socket, as from another container', async () => {
  const first = await start()
  await (await client(first.url)).set('kept', 'yes')
  vi.stubEnv('XDG_RUNTIME_DIR', join(folder, 'elsewhere'))
  await mkdir(join(folder, 'elsewhere'), { mode: 0o700 })
  try {
    await expect(start()).rejects.toMatchObject({ code: 'redis.taken', message: expect.stringContaining(join(folder, 'redis')) as string })
    await expect(repairRedis({ folder: join(folder, 'redis'), home: homeFolder() })).rejects.toMatchObject({ code: 'redis.taken' })
    // The lock ends with Redis itself, not with whoever started it.
    process.kill(first.pid, 'SIGKILL')
    const second = await start()
    expect(second.pid).not.toBe(first.pid)
    expect(await (await client(second.url)).get('kept')).toBe('yes')
    await second.stop()
  } finally {
    vi.unstubAllEnvs()
  }
})

it.runIf(canUnshare)(
  'two of two containers never write one file: the second says that the folder is taken',
  async () => {
    const data = join(folder, 'data')
    await mkdir(data, { mode: 0o700 })
    const first = await start({ folder: join(data, 'redis') })
    await (await client(first.url)).set('kept', 'yes')
    const before = readFileSync(join(data, 'redis', 'appendonly.aof'), 'utf8')
    const command = [process.execPath, join(root, 'bin', 'darkroom.mjs'), 'keys', 'add', 'second']
    const env = { PATH: process.env['PATH'] ?? '', HOME: homedir(), DARKROOM_DATA: data }
    // A container has its own /tmp and /run, and its own process ids: the socket is not to be seen, nor the process.
    await rename(dirname(first.url.slice('unix:'.length)), join(folder, 'out of sight'))
    const { status, stderr } = spawnSync('unshare', [...ownProcesses, ...command], { env, encoding: 'utf8' })
    await rename(join(folder, 'out of sight'), dirname(first.url.slice('unix:'.length)))
    expect(stderr).toMatch(
      /error: the Redis folder .*data\/redis is in use: another Redis writes there, in another container or of another user/,
    )
    expect(status).toBe(1)
    expect(readFileSync(join(data, 'redis', 'appendonly.aof'), 'utf8')).toBe(before)
  },
  30_000,
)

/** The files of a folder of Redis, but its log and its lock. */
const files = (): string[] =>
  readdirSync(join(folder, 'redis'), { recursive: true, encoding: 'utf8' })
    .filter((name) => !/redis\.(log|lock)$/.test(name))
    .toSorted()

it('refuses data that this Redis would pass over, or cannot read, and changes nothing', async () => {
  const first = await start()
  await first.stop()
  const { version } = first
  if (Number(version.split('.')[0]) < 7) {
    await rm(join(folder, 'redis', 'appendonly.aof'))
    await mkdir(join(folder, 'redis', 'appendonlydir'))
    writeFileSync(join(folder, 'redis', 'appendonlydir', 'appendonly.aof.manifest'), 'file appendonly.aof.1.incr.aof seq 1 type i\n')
    writeFileSync(join(folder, 'redis', 'appendonlydir', 'appendonly.aof.1.incr.aof'), '')
    const before = files()
    await expect(start()).rejects.toMatchObject({
      code: 'redis.unreadable',
      message: expect.stringMatching(/written by Redis 7\.0 or newer .* this is Redis 6\.2/) as string,
    })
    expect(files()).toEqual(before)
    await rm(join(folder, 'redis', 'appendonlydir'), { recursive: true })
  }
  const file = join(folder, 'redis', 'appendonly.aof')
  const newer = Buffer.from('REDIS0099\xfa\x09redis-ver\x0599.0', 'latin1')
  writeFileSync(file, newer)
  await expect(start()).rejects.toMatchObject({
    code: 'redis.unreadable',
    message: expect.stringContaining('RDB format version 99') as string,
  })
  expect(readFileSync(file)).toEqual(newer)
})

it('an append-only file with a damaged end is refused with words, and repaired on demand; a copy is kept', async () => {
  const first = await start()
  await (await client(first.url)).set('kept', 'yes')
  await first.stop()
  const [file = ''] = readdirSync(join(folder, 'redis'), { recursive: true, encoding: 'utf8' }).filter((name) =>
    /(incr\.|^appendonly\.)aof$/.test(name),
  )
  const path = join(folder, 'redis', file)
  // What a crash of the machine leaves: zeros where blocks had been promised.
  appendFileSync(path, Buffer.alloc(4096))
  const damaged = readFileSync(path)
  await expect(start()).rejects.toMatchObject({
    code: 'redis.damaged',
    message: expect.stringMatching(/append-only file .* is damaged: .*Bad file format/) as string,
    remedy: expect.stringContaining('darkroom repair') as string,
  })
  expect(readFileSync(path)).toEqual(damaged)
  const repair = await repairRedis({ folder: join(folder, 'redis'), home: homeFolder() })
  expect(repair?.bytes).toBe(4096)
  expect(statSync(repair?.copy ?? '').isDirectory() || readFileSync(repair?.copy ?? '').equals(damaged)).toBe(true)
  const again = await start()
  expect(await (await client(again.url)).get('kept')).toBe('yes')
  await again.stop()
  expect(await repairRedis({ folder: join(folder, 'redis'), home: homeFolder() })).toBeUndefined()

  // A command that was cut short is what a crash may leave; it was never answered.
  appendFileSync(path, '*3\r\n$3\r\nSET\r\n$4\r\nto')
  expect((await start()).note).toMatch(/incomplete, as after a crash, and was cut off at byte \d+/)
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
