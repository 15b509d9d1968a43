/** The cache of model weights in RAM: what counts as cached, what goes, and that a killed process leaves nothing. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, stat, statfs, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { root } from '../../../src/config.ts'
import { createLog } from '../../../src/log.ts'
import { stateOf, type FileState } from '../../../src/models/found.ts'
import { ModelCache, type Cacheable, type ModelCacheOptions } from '../../../src/workers/device/model-cache.ts'
import { PressureRelief, type PressureOptions } from '../../../src/workers/device/pressure.ts'
import { systemRam } from '../../../src/workers/device/ram.ts'
import type { Sample } from '../../../src/workers/device/report.ts'
import { eventually } from '../../support/wait.ts'

const KiB = 1024
const forever = new AbortController().signal
let folder: string
let caches: ModelCache[]

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-cache-'))
  caches = []
})
afterEach(async () => {
  for (const each of caches) await each.close()
  await rm(folder, { recursive: true })
})

const open = (more: Partial<ModelCacheOptions> = {}): ModelCache => {
  const made = new ModelCache({
    limit: 1 << 30,
    promise: (_bytes, _left, act) => act(),
    onEvicted: () => {},
    onSkipped: () => {},
    ...more,
  })
  caches.push(made)
  return made
}

/** A model as the index knows it: parts with their files, of so many bytes. */
async function model(id: string, files: Record<string, number>): Promise<Cacheable> {
  const path = join(folder, id)
  const states: FileState[] = []
  for (const [name, bytes] of Object.entries(files)) {
    await mkdir(join(path, name, '..'), { recursive: true })
    await writeFile(join(path, name), Buffer.alloc(bytes, `${id} ${name} `))
    const { ino, mtimeMs, size } = await stat(join(path, name))
    states.push({ path: name, size, modifiedMs: mtimeMs, inode: ino })
  }
  return {
    id,
    kind: 'checkpoint',
    bodyHash: id.padEnd(64, '0'),
    entry: { path, real: path, isFolder: true, files: states, state: stateOf(states) },
  }
}
const weights = 'unet/diffusion_pytorch_model.safetensors'
const small = (id: string): Promise<Cacheable> => model(id, { [weights]: 100 * KiB })

describe('a model in the cache', () => {
  it('is every file of weights that is drawn with, whole, under no name', async () => {
    const before = await readdir('/dev/shm')
    const one = await model('one', {
      [weights]: 300 * KiB + 7,
      'unet/diffusion_pytorch_model.fp16.safetensors': 10,
      'vae/diffusion_pytorch_model.fp16-00001-of-00002.safetensors': 20,
      'vae/diffusion_pytorch_model.fp16-00002-of-00002.safetensors': 30,
      'text_encoder/model.safetensors': 40,
      'text_encoder/config.json': 50,
      'other.safetensors': 60,
    })
    const cache = open()
    const told: number[][] = []
    const made = await cache.fill(one, forever, (done, total) => told.push([done, total]))
    expect(made).toMatchObject({ id: 'one', bytes: 300 * KiB + 7 + 20 + 30 + 40, uses: 0 })
    expect(told.at(-1)).toEqual([made.bytes, made.bytes])
    const files = await cache.filesOf(one)
    expect(files.map(({ path }) => path.slice(folder.length)).toSorted()).toEqual([
      '/one/text_encoder/model.safetensors',
      `/one/${weights}`,
      '/one/vae/diffusion_pytorch_model.fp16-00001-of-00002.safetensors',
      '/one/vae/diffusion_pytorch_model.fp16-00002-of-00002.safetensors',
    ])
    for (const { bytes, inode, mapping, path } of files) {
      expect(await readFile(mapping)).toEqual(await readFile(path))
      expect(await stat(mapping)).toMatchObject({ ino: inode, size: bytes })
    }
    expect(await readdir('/dev/shm')).toEqual(before)
  })

  it('of a folder that is one network are the weights beside its configuration; a pipeline’s are in its parts', async () => {
    const net = await model('net', {
      'config.json': 5,
      'diffusion_pytorch_model.safetensors': 200,
      'diffusion_pytorch_model.fp16.safetensors': 100,
    })
    expect(await open().fill(net, forever)).toMatchObject({ id: 'net', bytes: 200 })
    const pipeline = await model('pipeline', { [weights]: 300, 'model.safetensors': 900 })
    expect(await open().fill(pipeline, forever)).toMatchObject({ bytes: 300 })
  })

  it('is read once for all who ask at a time', async () => {
    const one = await small('one')
    const cache = open()
    const [a, b] = await Promise.all([cache.fill(one, forever), cache.fill(one, forever)])
    expect(a).toEqual(b)
    expect(await cache.fill(one, forever)).toMatchObject({ cachedAt: a.cachedAt })
    expect(cache.report).toMatchObject({ filled: 1, reading: [], models: [{ id: 'one' }] })
  })

  it('counts only while its files are what they were', async () => {
    const one = await small('one')
    const cache = open()
    await cache.fill(one, forever)
    expect(await cache.filesOf({ ...one, entry: { ...one.entry, state: 'another' } })).toEqual([])
    expect(cache.report).toMatchObject({ bytes: 0, evicted: 1, evictedFor: { changed: 1 } })
  })

  it('is none when a file changes while it is read', async () => {
    const one = await model('one', { [weights]: 9 << 20 })
    const cache = open({ bytesPerS: 20 << 20 })
    const filling = cache.fill(one, forever)
    await appendFile(join(folder, 'one', weights), 'more')
    await expect(filling).rejects.toMatchObject({ code: 'model.changed', field: 'input.model' })
    const other = await model('other', { [weights]: 9 << 20 })
    await utimes(join(folder, 'other', weights), 1, 1)
    await expect(cache.fill(other, forever)).rejects.toMatchObject({ code: 'model.changed' })
    expect(cache.report).toMatchObject({ bytes: 0, filled: 0, reading: [], models: [] })
  })

  it('is not read on when nobody waits for it any more', async () => {
    const one = await model('one', { [weights]: 64 << 20 })
    const cache = open({ bytesPerS: 4 << 20 })
    const [first, second] = [new AbortController(), new AbortController()]
    const filling = [cache.fill(one, first.signal), cache.fill(one, second.signal)]
    first.abort(new Error('first'))
    await expect(filling[0]).rejects.toThrow('first')
    expect(cache.report.reading).toHaveLength(1)
    second.abort(new Error('second'))
    await expect(filling[1]).rejects.toThrow('second')
    await eventually('nothing is read', async () => cache.report.reading.length === 0)
    expect(cache.report).toMatchObject({ filled: 0, models: [] })
  })
})

describe('a full cache', () => {
  it('lets go of what was used longest ago, and says so', async () => {
    const [a, b, c] = [await small('a'), await small('b'), await small('c')]
    const gone: number[][] = []
    const cache = open({ limit: 200 * KiB, onEvicted: (inodes) => gone.push(inodes) })
    await cache.fill(a, forever)
    await cache.fill(b, forever)
    const [held] = await cache.filesOf(a)
    const [evicted] = await cache.filesOf(b)
    await cache.filesOf(a)
    await cache.fill(c, forever)
    expect(cache.report).toMatchObject({ bytes: 200 * KiB, evicted: 1, evictedBytes: 100 * KiB, evictedFor: { limit: 1 } })
    expect(cache.report.models.map(({ id }) => id)).toEqual(['a', 'c'])
    expect(gone).toEqual([[evicted?.inode]])
    expect((await stat(held?.mapping ?? '')).ino).toBe(held?.inode)
  })

  it('refuses what is larger than its limit, or than the RAM that is free', async () => {
    const one = await small('one')
    const cache = open({ limit: 50 * KiB })
    await expect(cache.fill(one, forever)).rejects.toMatchObject({
      code: 'memory.exhausted',
      field: 'input.model',
      details: { need: 100 * KiB, limit: 50 * KiB },
    })
    const elsewhere = open({ folder: root })
    await expect(elsewhere.fill(one, forever)).rejects.toThrow('no shared memory')
    const { total, used } = systemRam()
    const automatic = open({ limit: null })
    expect(automatic.limit).toBeGreaterThan(0)
    expect(automatic.limit).toBeLessThan(0.6 * (total - used))
  })

  it('counts hits, misses and uses; a model that came from disk is read for the next time', async () => {
    const one = await small('one')
    const cache = open()
    expect(cache.report.hitRate).toBeNull()
    cache.loaded(one, false)
    await eventually('it is cached', async () => cache.report.models.length === 1)
    cache.loaded(one, true)
    cache.loaded(one, true)
    expect(cache.report).toMatchObject({ hits: 2, misses: 1, hitRate: 2 / 3, models: [{ id: 'one', uses: 2 }] })
    expect(cache.evict('one')).toMatchObject([{ id: 'one', uses: 2 }])
    expect(cache.evict('one')).toEqual([])
    const off = open({ limit: 0 })
    off.loaded(one, false)
    expect(off.report).toMatchObject({ limit: 0, misses: 1, reading: [], models: [] })
  })
})

describe('a process that is killed while it reads a model into RAM', () => {
  it('leaves nothing of it', async () => {
    const one = await model('one', { [weights]: 48 << 20 })
    const script = `
      import { ModelCache } from ${JSON.stringify(join(root, 'src/workers/device/model-cache.ts'))}
      const promise = (_bytes, _left, act) => act()
      const cache = new ModelCache({ limit: 1e9, bytesPerS: 8 << 20, promise, onEvicted() {}, onSkipped() {} })
      cache.fill(${JSON.stringify(one)}, new AbortController().signal, (done) => console.log(done))
    `
    const names = await readdir('/dev/shm')
    const used = async (): Promise<number> => {
      const { bfree, blocks, bsize } = await statfs('/dev/shm')
      return (blocks - bfree) * bsize
    }
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
      cwd: root,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await once(child.stdout, 'data')
    const while_ = await used()
    expect(while_).toBeGreaterThan(0)
    child.kill('SIGKILL')
    await once(child, 'exit')
    expect(await readdir('/dev/shm')).toEqual(names)
    await eventually('its memory is free', async () => (await used()) <= while_ - (4 << 20))
  })
})

describe('RAM that is in use by whomever', () => {
  /** RAM of a host, of which so much is in use. */
  const sampleOf = (used: number): Sample =>
    ({
      at: Date.now(),
      figures: { total: null, budget: null, used: null, usedIsOwn: false },
      python: null,
      ram: { total: 1000 * KiB, used },
    }) as Sample

  it('from 80 % on the cache lets go of one model after another, the one used longest ago first', async () => {
    const evicted: number[][] = []
    const cache = open({ onEvicted: (inodes) => evicted.push(inodes) })
    const [one, ...others] = [await small('one'), await small('two'), await small('three')]
    for (const each of [one, ...others]) await cache.fill(each, forever)
    const child = { isReady: false } as PressureOptions['child']
    const begin = (): PressureRelief => new PressureRelief({ device: 'd', child, cache, isRam: false, log: createLog('silent', 'test') })
    const turn = async (relief: PressureRelief, used: number): Promise<string[]> => {
      relief.update(sampleOf(used))
      await relief.relieve()
      return cache.report.models.map(({ id }) => id)
    }
    await cache.filesOf(one)
    expect(await turn(begin(), 799 * KiB)).toEqual(['two', 'three', 'one'])
    const relief = begin()
    expect(await turn(relief, 800 * KiB)).toEqual(['three', 'one'])
    expect(relief.pressure.ram).toMatchObject({ level: 'ok', rung: `let go of cached model two of ${100 * KiB} bytes` })
    // The figures show what that has brought a moment later: until then no other goes.
    expect(await turn(relief, 990 * KiB)).toEqual(['three', 'one'])
    expect(await turn(begin(), 990 * KiB)).toEqual(['one'])
    expect(cache.report).toMatchObject({ evicted: 2, evictedFor: { pressure: 2 }, evictedBytes: 200 * KiB })
    expect(evicted).toHaveLength(2)
  })
})
