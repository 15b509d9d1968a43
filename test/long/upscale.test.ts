/** A picture that is enlarged by a network while its worker dies, drains or rests: the same bytes. Real weights. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Session } from '../../src/client/index.ts'
import { run } from '../support/command.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { shapes } from '../support/pictures.ts'

const slow = 240_000
const step = 'postprocessing.upscale'

describe('a picture that is enlarged', () => {
  let farm: Farm
  let picture: string
  let undisturbed: string[]
  beforeAll(async () => {
    farm = await startFarm({ workers: 2, real: true, checkpointCalls: 1 })
    const body = await sharp(Buffer.from(shapes(320)))
      .png()
      .toBuffer()
    const { json } = await farm.client.request('POST', '/v1/artifacts', { headers: { 'Content-Type': 'image/png' }, body })
    picture = (json as { sha256: string }).sha256
    undisturbed = await farm.pictures(await submit(), slow)
  }, slow)
  afterAll(async () => farm[Symbol.asyncDispose](), 60_000)

  /** Some fifty tiles, two passes and a reduction. */
  async function submit(): Promise<string> {
    const input = { picture, upscaler: 'darkroom-tiny/upscaler/x2-compact', factor: 2.5, tile: 128 }
    return ((await farm.client.post('/v1/sessions', { workflow: 'image-upscale', input })).json as Session).id
  }

  it('goes on from its last checkpoint on another worker when its own is killed', { timeout: slow }, async () => {
    const id = await submit()
    const { worker } = await farm.untilCall(id, 10, slow)
    await worker.kill()
    expect(await farm.pictures(id, slow)).toEqual(undisturbed)
    const [lost, finished] = await farm.attempts(id, step)
    expect(lost).toMatchObject({ worker: worker.ready, end: 'lost' })
    expect(finished).toMatchObject({ worker: farm.other(worker).ready, end: 'completed' })
    expect(finished?.resumedFrom?.call).toBeGreaterThanOrEqual(10)
    expect(finished?.stats).toMatchObject({ resumedFrom: finished?.resumedFrom?.call, checkpointRefused: null })
    await farm.addWorker()
  })

  it('paused, it holds nothing of the device, and goes on from there when it is resumed', { timeout: slow }, async () => {
    const id = await submit()
    await farm.untilCall(id, 5, slow)
    await farm.control(id, 'pause')
    await farm.until(id, 'paused', slow)
    for (const worker of farm.workersAlive()) expect((await farm.vitals(worker)).sessions).not.toHaveProperty(id)
    await farm.control(id, 'resume')
    expect(await farm.pictures(id, slow)).toEqual(undisturbed)
    const attempts = await farm.attempts(id, step)
    expect(attempts.at(-1)?.resumedFrom?.call).toBeGreaterThanOrEqual(5)
  })

  it('drained, it is handed over', { timeout: slow }, async () => {
    const id = await submit()
    const { worker } = await farm.untilCall(id, 5, slow)
    await worker.stop(20_000)
    expect(await farm.pictures(id, slow)).toEqual(undisturbed)
    expect((await farm.attempts(id, step))[0]).toMatchObject({ worker: worker.ready, end: 'released' })
    await farm.addWorker()
  })

  it('by the command line is the file that the API has', { timeout: slow }, async () => {
    const file = join(farm.folder, 'shapes.png')
    await writeFile(
      file,
      await sharp(Buffer.from(shapes(320)))
        .png()
        .toBuffer(),
    )
    const words = ['--upscaler', 'darkroom-tiny/upscaler/x2-compact', '--factor', '2.5', '--tile', '128', '--json', '--out', farm.folder]
    const { code, stdout } = await run(['upscale', file, ...words], { DARKROOM_URL: farm.client.url })
    expect(code).toBe(0)
    const said = JSON.parse(stdout) as { output: { images: { sha256: string }[] }; files: string[] }
    expect(said.output.images.map(({ sha256 }) => sha256)).toEqual(undisturbed)
    expect(said.files).toHaveLength(1)
    const { code: refused, stderr } = await run(['upscale', file, '--upscaler', 'none'], { DARKROOM_URL: farm.client.url })
    expect(refused).toBe(1)
    expect(stderr).toMatch(/there is no upscaler "none"; usable are: darkroom-tiny\/upscaler\/x2-compact/)
  })
})
