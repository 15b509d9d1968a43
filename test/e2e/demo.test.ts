/** What a newcomer runs first, in a folder of its own. */
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { sha256Of } from '../../src/artifacts/store.ts'
import { start } from '../support/command.ts'

const slow = 240_000
let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-demo-test-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const demo = (...args: string[]) =>
  start(['demo', ...args], { TMPDIR: folder, DARKROOM_DATA: '/nonexistent', DARKROOM_WORKERS: '7' }, folder)
const remains = async (): Promise<string[]> =>
  (await readdir(folder)).filter((name) => name.startsWith('darkroom-') && !name.endsWith('.png'))

describe('the demo', () => {
  it('draws a picture, says where it is and what to try next, and leaves nothing else behind', { timeout: slow }, async () => {
    const { code, stdout, stderr } = await demo().ended
    expect({ code, stderr }).toMatchObject({ code: 0 })
    const path = /^saved (.*)$/m.exec(stdout)?.[1] ?? ''
    expect((await readFile(join(folder, path))).subarray(1, 4).toString()).toBe('PNG')
    for (const words of ['npm start', 'npx darkroom generate', 'knows these words', 'red', 'circle']) expect(stdout).toContain(words)
    expect(stderr).toMatch(/denoise/)
    expect(await remains()).toEqual([])
  })

  it('kills the worker in the middle, and both pictures are the same file', { timeout: slow }, async () => {
    const { code, stdout, stderr } = await demo('--kill').ended
    expect({ code, stderr }).toMatchObject({ code: 0, stderr: expect.stringContaining('killed worker') as string })
    const [first, second] = [...stdout.matchAll(/^sha256 ([0-9a-f]{64})$/gm)].map(([, hash]) => hash)
    expect(first).toBe(second)
    const saved = [...stdout.matchAll(/^saved (.*)$/gm)].map(([, path = '']) => join(folder, path))
    expect(saved).toHaveLength(2)
    for (const path of saved) expect(sha256Of(await readFile(path))).toBe(first)
    expect(stdout).toMatch(/worker \S+ was lost while it ran inference\.denoise/)
    expect(stdout).toMatch(/worker \S+ went on from call [1-9]\d/)
    expect(await remains()).toEqual([])
  })

  it('interrupted, it stops what it started', { timeout: slow }, async () => {
    const running = demo()
    await running.until(/api +ready/)
    running.process.kill('SIGINT')
    expect((await running.ended).code).toBe(130)
    expect(await remains()).toEqual([])
  })
})
