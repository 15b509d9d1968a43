import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { askHolder, socketFolder, takeLock } from '../../host/lock.mjs'
import { BadPlace, checkChosen, ownFolder, uid } from '../../host/own-folder.mjs'
import { root } from '../../src/config.ts'

let folder: string
let runtime: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'darkroom-lock-'))
  runtime = mkdtempSync(join(tmpdir(), 'dr-run-'))
  vi.stubEnv('XDG_RUNTIME_DIR', runtime)
})
afterEach(() => {
  vi.unstubAllEnvs()
  for (const each of [folder, runtime]) rmSync(each, { recursive: true, force: true })
})

const take = async (info?: () => Record<string, unknown>) => {
  const lock = await takeLock(folder, 'test', info)
  if (!('release' in lock)) throw new Error('it is held')
  return lock
}

describe('the lock', () => {
  it('has one holder at a time among processes that take it, and are killed, as fast as they can', async () => {
    const inside = join(folder, 'inside')
    const script = `
      const { mkdirSync, rmdirSync } = await import('node:fs')
      const { takeLock } = await import(${JSON.stringify(join(root, 'host', 'lock.mjs'))})
      for (let i = 0; i < 25; ) {
        const lock = await takeLock(${JSON.stringify(folder)}, 'test')
        if (!('release' in lock)) continue
        mkdirSync(${JSON.stringify(inside)})
        await new Promise((done) => setTimeout(done, 2))
        rmdirSync(${JSON.stringify(inside)})
        await lock.release()
        i++
      }`
    const killed = `
      const { takeLock } = await import(${JSON.stringify(join(root, 'host', 'lock.mjs'))})
      for (;;) if ('release' in (await takeLock(${JSON.stringify(folder)}, 'test'))) process.kill(process.pid, 'SIGKILL')`
    const ends = [script, script, script, killed, killed].map(async (text) => {
      const child = spawn(process.execPath, ['--input-type=module', '-e', text], { stdio: ['ignore', 'ignore', 'pipe'] })
      let words = ''
      child.stderr.on('data', (chunk: Buffer) => (words += chunk.toString()))
      const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
      return code === 0 ? 'done' : (signal ?? words)
    })
    expect(await Promise.all(ends)).toEqual(['done', 'done', 'done', 'SIGKILL', 'SIGKILL'])
    await (await take()).release()
    expect(readdirSync(runtime)).toEqual([])
  }, 60_000)

  it('tells who holds it, also where the environment does not name the runtime folder of its holder', async () => {
    expect(await askHolder(folder, 'test')).toBeUndefined()
    const lock = await take(() => ({ url: 'http://127.0.0.1:1' }))
    expect(await askHolder(folder, 'test')).toMatchObject({ pid: process.pid, url: 'http://127.0.0.1:1' })
    expect(await takeLock(folder, 'test')).toMatchObject({ heldBy: { pid: process.pid } })
    // Whatever folder the asking process was started in.
    const here = process.cwd()
    process.chdir(runtime)
    expect(await askHolder(folder, 'test')).toMatchObject({ pid: process.pid })
    process.chdir(here)
    expect(await askHolder(folder, 'another')).toBeUndefined()
    expect(await askHolder(runtime, 'test')).toBeUndefined()
    await lock.release()
    expect(await askHolder(folder, 'test')).toBeUndefined()
  })

  it('lies in a folder of mode 0700, and what another could have put there is refused with words', async () => {
    const place = socketFolder(folder)
    expect(lstatSync(place).mode & 0o777).toBe(0o700)
    const impostor = createServer((socket) => socket.end('{"holds":true,"url":"http://127.0.0.1:9"}\n'))
    chmodSync(place, 0o777)
    await new Promise<void>((done) => void impostor.listen(join(place, 'impostor'), done))
    for (const act of [() => askHolder(folder, 'test'), () => takeLock(folder, 'test')]) {
      await expect(act()).rejects.toThrow(/has mode 0777, not 0700: another user of this machine could .* Remove it/)
      await expect(act()).rejects.toBeInstanceOf(BadPlace)
    }
    impostor.close()
    rmSync(place, { recursive: true })
    symlinkSync(folder, place)
    await expect(askHolder(folder, 'test')).rejects.toThrow(/is a link, not a folder/)
    expect(() => socketFolder(folder)).toThrow(/is a link/)
    expect(readdirSync(folder)).toEqual([])
  })
})

describe('a shared place', () => {
  it.each<[string, (path: string) => void, RegExp]>([
    ['a link', (path) => symlinkSync(tmpdir(), path), /is a link, not a folder/],
    ['a dangling link', (path) => symlinkSync(join(path, 'nowhere'), path), /is a link, not a folder/],
    ['open to the group', (path) => mkdirSync(path, { mode: 0o750 }), /has mode 0750, not 0700/],
  ])('that is %s is refused', (_, make, words) => {
    const path = join(folder, 'place')
    make(path)
    expect(() => ownFolder(path)).toThrow(words)
  })

  it('in a folder that everybody may rename things in is refused', () => {
    const open = join(folder, 'open')
    mkdirSync(open)
    chmodSync(open, 0o777)
    expect(() => ownFolder(join(open, 'place'))).toThrow(/can be written by everybody, and has no sticky bit/)
    expect(existsSync(join(open, 'place'))).toBe(false)
    chmodSync(open, 0o1777)
    expect(ownFolder(join(open, 'place'))).toBe(join(open, 'place'))
  })

  it.runIf(uid === 0)('of another user is refused, by this user’s name for it', async () => {
    const { chownSync } = await import('node:fs')
    const path = join(folder, 'place')
    mkdirSync(path, { mode: 0o700 })
    chownSync(path, 12_345, 12_345)
    expect(() => ownFolder(path)).toThrow(/belongs to the user with number 12345, not to this user \(0\)/)
  })

  it('that the user has chosen may be anybody’s group, but not everybody’s', () => {
    const data = join(folder, 'data')
    mkdirSync(data)
    chmodSync(data, 0o2775)
    expect(() => checkChosen(data, 'DARKROOM_DATA')).not.toThrow()
    chmodSync(data, 0o777)
    expect(() => checkChosen(data, 'DARKROOM_DATA')).toThrow(/can be written by everybody.*DARKROOM_DATA/)
  })
})
