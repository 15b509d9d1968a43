/** A worker that dies while it makes one picture of another, and a session that is cancelled meanwhile. */
import { readFile } from 'node:fs/promises'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startFarm, type Farm } from '../support/farm.ts'
import { module } from '../support/scripted.ts'
import { eventually } from '../support/wait.ts'

let farm: Farm
/** A picture of the farm's. */
let drawn: string
beforeAll(async () => {
  farm = await startFarm({ workers: 1, module, dying: 'worker' })
  drawn = (await farm.pictures(await farm.submit({ seed: 40 })))[0] ?? ''
})
afterAll(() => farm[Symbol.asyncDispose]())

const submit = async (workflow: string, input: Record<string, unknown>): Promise<string> =>
  (await farm.client.post('/v1/sessions', { workflow, input })).json.id as string
const imageOf = async (id: string): Promise<string> => (await farm.pictures(id))[0] ?? ''

describe('a picture that is enhanced', () => {
  const settings = { sharpen: 0.7, grain: { strength: 0.2, seed: 1 } }
  let undisturbed: string
  beforeAll(async () => {
    undisturbed = await imageOf(await submit('image-enhance', { picture: drawn, ...settings }))
  })

  it.each(['artifact.before', 'artifact.after', 'deliver.before'] as const)(
    'has the same bytes, and a thumbnail, when its worker dies at %s',
    async (point) => {
      const id = await submit('image-generation', { prompt: 'a red circle', seed: 40, postprocess: [{ enhance: settings }] })
      await eventually('the step runs', async () => (await farm.attempts(id, 'postprocessing.enhance')).length > 0 || undefined)
      farm.points.arm(point, id)
      await eventually('the worker has died', () => Promise.resolve(farm.points.diedAt(point, id)))
      await farm.workers[0]?.start()
      expect(await imageOf(id)).toBe(undisturbed)
      expect((await farm.attempts(id, 'postprocessing.enhance')).map(({ end }) => end)).toEqual(['lost', 'completed'])
      const thumbnail = await farm.client.get(`/v1/artifacts/${undisturbed}?size=256`)
      expect(await sharp(thumbnail.bytes).metadata()).toMatchObject({ format: 'webp', width: 64, height: 64 })
    },
  )
})

describe('a session that is cancelled', () => {
  /** Command lines of processes below the worker that convert a picture. */
  const converting = async (): Promise<string[]> => {
    const pid = farm.workers[0]?.pid ?? 0
    const children = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim().split(' ').filter(Boolean)
    const lines = await Promise.all(children.map((child) => readFile(`/proc/${child}/cmdline`, 'utf8').catch(() => '')))
    return lines.filter((line) => line.includes('convert-process.mjs'))
  }

  it('ends the process that works for it, at once', async () => {
    const noise = { type: 'gaussian', mean: 128, sigma: 60 } as const
    const file = await sharp({ create: { width: 2000, height: 2000, channels: 3, background: 'grey', noise } })
      .png()
      .toBuffer()
    const upload = await farm.client.request('POST', '/v1/artifacts', { headers: { 'Content-Type': 'image/png' }, body: file })
    const id = await submit('image-convert', { picture: upload.json.sha256, format: 'avif', quality: 90, maxBytes: 100_000 })
    await eventually('its process runs', async () => (await converting()).length > 0 || undefined)
    await farm.control(id, 'cancel')
    await eventually('its process has ended', async () => (await converting()).length === 0 || undefined)
    expect((await farm.get(id)).status).toBe('cancelled')
  })
})
