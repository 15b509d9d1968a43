/** What a ControlNet is shown, seen by networks of the operator: real weights that draw, random ones that see. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { decode } from 'fast-png'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Session } from '../../src/client/index.ts'
import { root } from '../../src/config.ts'
import { readPngTexts } from '../../src/domains/postprocessing/png.ts'
import { run } from '../support/command.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { makeMicroPreprocessors } from '../support/micro-models.ts'
import { shapes } from '../support/pictures.ts'
import { eventually } from '../support/wait.ts'

const slow = 240_000
const edges = 'darkroom-tiny/controlnet-edge'
const size = { width: 128, height: 128 }
const request = { prompt: 'a green star on black', seed: 50, steps: 4, ...size }

describe('networks that see what a ControlNet is shown', () => {
  let farm: Farm
  let models = ''
  let picture = ''
  let png: Buffer
  beforeAll(async () => {
    models = await mkdtemp(join(tmpdir(), 'darkroom-seeing-'))
    await makeMicroPreprocessors(models, 'depth-anything', 'segformer')
    farm = await startFarm({
      workers: 1,
      real: true,
      settings: { DARKROOM_MODELS: [join(root, 'models'), models].join(delimiter) },
    })
    png = await sharp(Buffer.from(shapes(128)))
      .png()
      .toBuffer()
    const { json } = await farm.client.request('POST', '/v1/artifacts', { headers: { 'Content-Type': 'image/png' }, body: png })
    picture = json.sha256 as string
  }, slow)
  afterAll(async () => {
    await farm[Symbol.asyncDispose]()
    await rm(models, { recursive: true })
  }, 60_000)

  const bytesOf = async (sha256: string): Promise<Buffer> => (await farm.client.get(`/v1/artifacts/${sha256}`)).bytes
  const drawn = async (control: object): Promise<string> =>
    (await farm.pictures(await farm.submit({ ...request, control: [{ model: edges, ...control }] }), slow))[0] ?? ''
  /** The picture that `image-preprocess` makes. */
  async function seen(preprocessor: object): Promise<{ sha256: string; bytes: Buffer }> {
    const { json } = await farm.client.post('/v1/sessions', { workflow: 'image-preprocess', input: { picture, preprocessor } })
    const { output } = await farm.until((json as Session).id, 'succeeded', slow)
    const { sha256 = '' } = output?.images?.[0] ?? {}
    return { sha256, bytes: await bytesOf(sha256) }
  }

  it('are listed with what they see', async () => {
    const { json } = await farm.client.get('/v1/models?kind=preprocessor')
    expect((json as { models: object[] }).models).toMatchObject([
      { id: 'depth-anything', kind: 'preprocessor', task: 'depth', reason: null },
      { id: 'segformer', kind: 'preprocessor', task: 'segment', reason: null, figures: { labels: 150 } },
    ])
  })

  it('draw its picture, which is kept, and is what steers; again it is the same bytes', { timeout: slow }, async () => {
    const shown = await seen({ name: 'depth' })
    const pixels = decode(shown.bytes)
    expect([pixels.width, pixels.height]).toEqual([128, 128])
    expect(new Set(pixels.data).size).toBeGreaterThan(20)
    const model = { id: 'depth-anything', bodyHash: expect.stringMatching(/^[0-9a-f]{64}$/) as string }
    expect(JSON.parse(readPngTexts(shown.bytes)['darkroom'] ?? '')).toMatchObject({
      workflow: 'image-preprocess@1',
      input: { preprocessor: { name: 'depth', model } },
      exactness: { key: expect.any(String) as string },
    })
    const first = await drawn({ picture, preprocessor: { name: 'depth' } })
    expect(await drawn({ picture, preprocessor: { name: 'depth', model: 'depth-anything' } })).toBe(first)
    expect(decode(await bytesOf(await drawn({ picture: shown.sha256 }))).data).toEqual(decode(await bytesOf(first)).data)
    expect(decode(await bytesOf(await drawn({ picture }))).data).not.toEqual(decode(await bytesOf(first)).data)
    const receipt = JSON.parse(readPngTexts(await bytesOf(first))['darkroom'] ?? '') as { input: { control: object[] } }
    expect(receipt.input.control).toMatchObject([{ preprocessor: { name: 'depth', model } }])
    await eventually('it is resident beside the others', async () => {
      const [worker] = (await farm.client.get('/v1/workers')).json.workers as { resident: string[] }[]
      return ['depth-anything', edges, 'darkroom-tiny'].every((id) => worker?.resident.includes(id)) || undefined
    })
  })

  it('give each class of things its colour', { timeout: slow }, async () => {
    const { data } = decode((await seen({ name: 'segment' })).bytes)
    const colours = new Set(Array.from({ length: 128 * 128 }, (_, n) => data.slice(3 * n, 3 * n + 3).join(' ')))
    expect(colours.size).toBeGreaterThan(1)
    expect(colours.size).toBeLessThanOrEqual(150)
  })

  it('are drawn again from a picture’s own receipt, and named on the command line', { timeout: slow }, async () => {
    const file = join(models, 'shapes.png')
    await writeFile(file, png)
    const words = ['--control', file, '--control-model', edges, '--preprocessor', 'depth', '--preprocessor-model', 'depth-anything']
    const settings = ['--seed', '50', '--steps', '4', '--size', '128x128', '--json', '--out', models]
    const { code, stdout } = await run(['generate', request.prompt, ...words, ...settings], { DARKROOM_URL: farm.client.url })
    expect(code).toBe(0)
    const { files, output } = JSON.parse(stdout) as { files: string[]; output: { images: { sha256: string }[] } }
    expect(output.images[0]?.sha256).toBe(await drawn({ picture, preprocessor: { name: 'depth' } }))
    const verified = await run(['verify', files[0] ?? '', '--json'], { DARKROOM_URL: farm.client.url })
    expect(verified.code).toBe(0)
    expect(JSON.parse(verified.stdout)).toMatchObject({ isSame: true })
  })

  it.each<[string, object, string, RegExp]>([
    ['one that sees something else', { name: 'depth', model: 'segformer' }, 'api.invalid', /segformer sees classes of things, not depth/],
    ['one that is not there', { name: 'depth', model: 'none' }, 'model.unknown', /there is no preprocessor \\"none\\"/],
    ['a ControlNet', { name: 'segment', model: edges }, 'model.unknown', /is no preprocessor but a controlnet/],
  ])('%s is refused by its field', async (_, preprocessor, code, words) => {
    const input = { ...request, control: [{ model: edges, picture, preprocessor }] }
    const { json, text } = await farm.client.post('/v1/sessions', { workflow: 'image-generation', input })
    expect(json).toMatchObject({ code, ...(code !== 'api.invalid' && { field: 'input.control.0.preprocessor.model' }) })
    expect(text).toMatch(words)
    expect(text).toContain('input.control.0.preprocessor.model')
  })
})
