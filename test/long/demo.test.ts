/** The demo that kills its worker. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { sha256Of } from '../../src/artifacts/store.ts'
import { demo, remains } from '../support/demo.ts'

it('the demo kills the worker in the middle, and both pictures are the same file', { timeout: 240_000 }, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-demo-test-'))
  try {
    const { code, stdout, stderr } = await demo(folder, '--kill').ended
    expect({ code, stderr }).toMatchObject({ code: 0, stderr: expect.stringContaining('killed worker') as string })
    const [first, second] = [...stdout.matchAll(/^sha256 ([0-9a-f]{64})$/gm)].map(([, hash]) => hash)
    expect(first).toBe(second)
    const saved = [...stdout.matchAll(/^saved (.*)$/gm)].map(([, path = '']) => join(folder, path))
    expect(saved).toHaveLength(2)
    for (const path of saved) expect(sha256Of(await readFile(path))).toBe(first)
    expect(stdout).toMatch(/worker \S+ was lost while it ran inference\.denoise/)
    expect(stdout).toMatch(/worker \S+ went on from call [1-9]\d/)
    expect(await remains(folder)).toEqual([])
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})
