/** A session as a file: saved by one command, run again by another, and compared; on a farm with the fake child. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import type { SessionExport } from '../../src/client/index.ts'
import { run, type Ended } from '../support/command.ts'
import { startFarm, type Farm } from '../support/farm.ts'

describe('a session as a file', () => {
  let farm: Farm
  let folder = ''
  const darkroom = (...args: string[]): Promise<Ended> => run(args, { DARKROOM_URL: farm.client.url, DARKROOM_DATA: folder })
  const saved = async (id: string): Promise<{ file: string; exported: SessionExport }> => {
    const file = join(folder, `${id}.json`)
    expect(await darkroom('export', id, '--out', file)).toMatchObject({ code: 0, stdout: `saved ${file}\n`, stderr: '' })
    return { file, exported: JSON.parse(await readFile(file, 'utf8')) as SessionExport }
  }
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'darkroom-replay-'))
    farm = await startFarm({ settings: { DARKROOM_WORKFLOWS: join(root, 'examples') }, fake: ['--call-ms', '1'] })
  })
  afterAll(async () => {
    await farm[Symbol.asyncDispose]()
    await rm(folder, { recursive: true })
  })

  it('runs again to the same bytes, a picture and a workflow of one’s own', async () => {
    const picture = await farm.submit({ seed: 5, count: 2 })
    const pictures = await farm.pictures(picture)
    const { file, exported } = await saved(picture)
    expect(exported.session.output?.images?.map(({ sha256 }) => sha256)).toEqual(pictures)
    expect(exported.request.input).toMatchObject({ prompt: 'a red circle', seed: 5, count: 2, model: 'darkroom-tiny' })
    expect(exported.history.map(({ event }) => event.type)).toContain('session.succeeded')
    expect(exported.session.keyId).toBeNull()
    const replayed = await darkroom('replay', file)
    expect(replayed).toMatchObject({ code: 0, stdout: expect.stringMatching(/^the same: /) as string })
    expect(replayed.stdout).toContain(pictures[1])
    const night = await farm.submit({ prompt: undefined, prompts: ['a', 'b'] }, { workflow: 'nightly-pictures' })
    await farm.until(night, 'succeeded')
    const own = await saved(night)
    expect(own.exported.content).toMatch(/^[0-9a-f]{64}$/)
    expect((await darkroom('replay', own.file)).code).toBe(0)
    await writeFile(own.file, JSON.stringify({ ...own.exported, content: 'f'.repeat(64) }))
    expect(await darkroom('replay', own.file)).toMatchObject({ code: 1, stderr: expect.stringContaining('(workflow.changed)') as string })
  })

  it('says what came out otherwise, and what is no such file', async () => {
    const { file, exported } = await saved(await farm.submit({ seed: 6 }).then(async (id) => (await farm.until(id, 'succeeded')).id))
    await writeFile(file, JSON.stringify({ ...exported, request: { ...exported.request, input: { ...exported.request.input, seed: 7 } } }))
    expect(await darkroom('replay', file)).toMatchObject({ code: 3, stdout: expect.stringMatching(/^differs: it was /) as string })
    for (const text of ['', 'null', '{"format":"darkroom.session/1"}', JSON.stringify({ ...exported, format: 'another' })]) {
      await writeFile(file, text)
      expect(await darkroom('replay', file)).toMatchObject({ code: 1, stderr: expect.stringContaining('(artifact.untold)') as string })
    }
  })

  it('is listed by its states, and forked from the command line', async () => {
    const id = await farm.submit({ seed: 8, steps: 6 })
    await farm.pictures(id)
    const { stdout } = await darkroom('states', id)
    expect(stdout).toMatch(/^ENTRY +AT +STATE +OPEN\n1 .* \{"drawing":"encoding"\} +inference\.encode\n/)
    const forked = await darkroom('fork', id, '--set', 'steps=9')
    expect(forked.stdout).toMatch(new RegExp(`^\\S+ queued, parts from ${id} after entry \\d+, at inference\\.denoise\\n$`))
    await farm.pictures(forked.stdout.split(' ')[0] ?? '')
    expect(await darkroom('workflows')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^nightly-pictures@1 +nightly-pictures\.ts/m) as string,
    })
    expect(await darkroom('workflows', 'reload')).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('judged-picture@1\n') as string,
    })
  })
})
