/** What a newcomer runs first, in a folder of its own. With `--kill`: test/long/demo.test.ts. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { demo, remains } from '../support/demo.ts'

const slow = 240_000
let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-demo-test-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

describe('the demo', () => {
  it('draws a picture, says where it is and what to try next, and leaves nothing else behind', { timeout: slow }, async () => {
    const { code, stdout, stderr } = await demo(folder).ended
    expect({ code, stderr }).toMatchObject({ code: 0 })
    const path = /^saved (.*)$/m.exec(stdout)?.[1] ?? ''
    expect((await readFile(join(folder, path))).subarray(1, 4).toString()).toBe('PNG')
    for (const words of ['npm start', 'npx darkroom generate', 'knows these words', 'red', 'circle']) expect(stdout).toContain(words)
    expect(stderr).toMatch(/denoise/)
    expect(await remains(folder)).toEqual([])
  })

  it('interrupted, it stops what it started', { timeout: slow }, async () => {
    const running = demo(folder)
    await running.until(/api +ready/)
    running.process.kill('SIGINT')
    expect((await running.ended).code).toBe(130)
    expect(await remains(folder)).toEqual([])
  })
})
