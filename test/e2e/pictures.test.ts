/** Drawing over pictures, as a user does it: real weights, real files, over HTTP. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decode } from 'fast-png'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ModelStatus } from '../../src/client/index.ts'
import { readPngTexts, writePng } from '../../src/domains/postprocessing/png.ts'
import { run } from '../support/command.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { shapes } from '../support/pictures.ts'
import { eventually } from '../support/wait.ts'

const slow = 240_000
const prompt = 'a red circle left of a blue square on yellow'
const size = { width: 128, height: 128 }
const steps = 12

describe('a picture to begin from', () => {
  let farm: Farm
  /** Drawn by the farm itself. */
  let first: { sha256: string; bytes: Buffer }
  beforeAll(async () => {
    farm = await startFarm({ workers: 1, real: true })
    const [sha256 = ''] = await farm.pictures(await farm.submit({ prompt, seed: 8, steps, ...size }), slow)
    first = { sha256, bytes: await bytesOf(sha256) }
  }, slow)
  afterAll(async () => farm[Symbol.asyncDispose](), 60_000)

  const bytesOf = async (sha256: string): Promise<Buffer> => (await farm.client.get(`/v1/artifacts/${sha256}`)).bytes
  const upload = async (body: Buffer): Promise<string> =>
    (await farm.client.request('POST', '/v1/artifacts', { headers: { 'Content-Type': 'image/png' }, body })).json.sha256 as string
  /** White to the right of `from`. */
  const rightOf = (from: number, width = 128, height = 128): Promise<Buffer> =>
    sharp({ create: { width, height, channels: 3, background: 'white' } })
      .composite([{ input: { create: { width: from, height, channels: 3, background: 'black' } }, left: 0, top: 0 }])
      .png()
      .toBuffer()
  /** Pixels that differ, by column. */
  function changed(before: Buffer, after: Buffer): Set<number> {
    const [old, now] = [decode(before), decode(after)]
    expect([now.width, now.height, now.channels]).toEqual([old.width, old.height, old.channels])
    const columns = new Set<number>()
    for (let i = 0; i < old.data.length; i++) if (old.data[i] !== now.data[i]) columns.add(Math.floor(i / old.channels) % old.width)
    return columns
  }

  it('is one of a session’s or one that was uploaded; the same pixels are the same picture', { timeout: slow }, async () => {
    const request = { prompt, seed: 9, steps, strength: 0.5, ...size }
    const uploaded = await upload(first.bytes)
    // The same pixels in another file.
    expect(uploaded).not.toBe(first.sha256)
    const [fromSession, fromFile] = await Promise.all(
      [first.sha256, uploaded].map(async (picture) => farm.until(await farm.submit({ ...request, picture }), 'succeeded', slow)),
    )
    const pngOf = (session: typeof fromFile): Promise<Buffer> => bytesOf(session?.output?.images?.[0]?.sha256 ?? '')
    const [one, other] = [await pngOf(fromSession), await pngOf(fromFile)]
    expect(decode(one).data).toEqual(decode(other).data)
    const texts = readPngTexts(one)
    expect(texts['parameters']).toMatch(
      /Model: darkroom-tiny, Init image: [0-9a-f]{64}, Resize mode: Crop and resize, Denoising strength: 0\.5$/,
    )
    expect(JSON.parse(texts['darkroom'] ?? '')).toMatchObject({
      input: { picture: { sha256: first.sha256, ...size }, strength: 0.5, resize: 'crop' },
    })
    const { steps: done } = await farm.receipt(fromFile?.id ?? '')
    expect(done.map(({ step }) => step)).toContain('inference.encode_picture')
    expect(done.find(({ step }) => step === 'inference.denoise')?.attempts[0]?.stats).toMatchObject({ calls: steps / 2 })
  })

  it('at full strength is no picture at all', { timeout: slow }, async () => {
    const request = { prompt, seed: 8, steps, ...size }
    const [sha256 = ''] = await farm.pictures(await farm.submit({ ...request, picture: first.sha256, strength: 1 }), slow)
    expect(decode(await bytesOf(sha256)).data).toEqual(decode(first.bytes).data)
  })

  it('keeps every byte outside of a mask, for each of several images', { timeout: slow }, async () => {
    const mask = await upload(await rightOf(64))
    const session = await farm.submit({
      prompt,
      seed: 30,
      steps,
      count: 2,
      picture: first.sha256,
      mask: { source: mask, fill: 'noise' },
      ...size,
    })
    for (const sha256 of await farm.pictures(session, slow)) {
      const columns = changed(first.bytes, await bytesOf(sha256))
      expect(columns.size).toBeGreaterThan(40)
      expect(Math.min(...columns)).toBeGreaterThanOrEqual(64)
    }
  })

  it('of another size keeps its size where the masked area alone is drawn', { timeout: slow }, async () => {
    const large = await sharp(first.bytes).resize(300, 200, { fit: 'fill' }).png().toBuffer()
    const [picture, mask] = [await upload(large), await upload(await rightOf(220, 300, 200))]
    const request = { prompt, seed: 31, steps, picture, mask: { source: mask, area: 'masked', padding: 10 }, ...size }
    const session = await farm.until(await farm.submit(request), 'succeeded', slow)
    const [image] = session.output?.images ?? []
    expect(image).toMatchObject({ width: 300, height: 200 })
    const bytes = await bytesOf(image?.sha256 ?? '')
    expect(Math.min(...changed(large, bytes))).toBeGreaterThanOrEqual(220)
    expect(readPngTexts(bytes)['parameters']).toMatch(/Size: 128x128, .*Mask blur: 4, Inpaint area: Only masked, Masked area padding: 10$/)
  })

  it('twice as large over what was drawn, and from its own receipt the same file again', { timeout: slow }, async () => {
    const hires = { upscaler: 'lanczos', steps: 2, strength: 0.5, prompt: `${prompt}, large` }
    const session = await farm.until(await farm.submit({ prompt, seed: 8, steps: 4, ...size, hires }), 'succeeded', slow)
    const [image] = session.output?.images ?? []
    expect(image).toMatchObject({ width: 256, height: 256 })
    const bytes = await bytesOf(image?.sha256 ?? '')
    expect(decode(bytes)).toMatchObject({ width: 256, height: 256 })
    expect(readPngTexts(bytes)['parameters']).toMatch(
      /Size: 128x128, .*Denoising strength: 0\.5, Hires resize: 256x256, Hires steps: 2, .*Lanczos/,
    )
    const { steps: done } = await farm.receipt(session.id)
    expect(done.map(({ step }) => step)).toContain('inference.enlarge')
    expect(done.filter(({ step }) => step === 'inference.denoise').map(({ attempts }) => attempts[0]?.stats?.['calls'])).toEqual([4, 2])
    const { json: told } = await farm.client.get(`/v1/artifacts/${image?.sha256}/request`)
    expect(told).toMatchObject({ source: 'darkroom', unread: [], input: { seed: 8, hires: { width: 256, steps: 2 } } })
    expect(await farm.pictures(await farm.submit(told.input), slow)).toEqual([image?.sha256])
  })

  it('with regions drawn again keeps every byte outside of them', { timeout: slow }, async () => {
    const detail = [
      { box: { left: 80, top: 8, width: 24, height: 24 }, strength: 0.8, padding: 8, blur: 2 },
      { box: { left: 96, top: 90, width: 30, height: 30 }, strength: 0.8, padding: 8, blur: 2, prompt: 'a white ring on black' },
    ]
    const [sha256 = ''] = await farm.pictures(await farm.submit({ prompt, seed: 8, steps, ...size, detail }), slow)
    const bytes = await bytesOf(sha256)
    const [before, after] = [decode(first.bytes), decode(bytes)]
    const isIn = ({ left, top, width, height }: (typeof detail)[number]['box'], i: number): boolean => {
      const [x, y] = [Math.floor(i / 3) % 128, Math.floor(i / 3 / 128)]
      return x >= left && x < left + width && y >= top && y < top + height
    }
    const other = [...after.data.keys()].filter((i) => after.data[i] !== before.data[i])
    const [one, two] = detail.map(({ box }) => other.filter((i) => isIn(box, i)).length)
    expect(other).toHaveLength((one ?? 0) + (two ?? 0))
    expect(Math.min(one ?? 0, two ?? 0)).toBeGreaterThan(200)
    const { json: told } = await farm.client.get(`/v1/artifacts/${sha256}/request`)
    expect(told.input.detail).toMatchObject(detail)
  })

  it('is drawn again by `verify`, to the same bytes; one with a changed pixel is not', { timeout: slow }, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'darkroom-verify-'))
    const verify = (file: string) => run(['verify', join(folder, file)], { DARKROOM_URL: farm.client.url })
    await writeFile(join(folder, 'same.png'), first.bytes)
    const { data, width, height } = decode(first.bytes)
    const touched = Uint8Array.from(data)
    touched[3 * 500] = (touched[3 * 500] ?? 0) ^ 1
    await writeFile(join(folder, 'touched.png'), await writePng(touched, width, height, readPngTexts(first.bytes)))
    const [same, other] = await Promise.all([verify('same.png'), verify('touched.png')])
    expect(same).toMatchObject({ code: 0, stdout: expect.stringContaining(`the same bytes: ${first.sha256}`) as string })
    expect(other).toMatchObject({
      code: 3,
      stdout: expect.stringMatching(/^differs: 1 of 16384 pixels\nthe exactness key is the same/) as string,
    })
    await rm(folder, { recursive: true })
  })

  it('and a mask of nothing fail by name', { timeout: slow }, async () => {
    const mask = await upload(await rightOf(128))
    const session = await farm.until(await farm.submit({ picture: first.sha256, mask: { source: mask }, steps, ...size }), 'failed', slow)
    expect(session.error).toMatchObject({ code: 'inference.mask_empty', field: 'mask', class: 'permanent' })
  })

  const upscaler = 'darkroom-tiny/upscaler/x2-compact'
  const upscaled = async (input: object): Promise<Buffer> => {
    const { json } = await farm.client.post('/v1/images/upscale', input, { Prefer: 'wait=60' })
    const [image] = (json as { images: { sha256: string; url: string }[] }).images
    expect(image?.url).toBe(`/v1/artifacts/${image?.sha256}`)
    return bytesOf(image?.sha256 ?? '')
  }

  it('is enlarged by darkroom-tiny’s upscaler by three decibels more than by a filter', { timeout: slow }, async () => {
    const truth = await sharp(Buffer.from(shapes(256)))
      .removeAlpha()
      .raw()
      .toBuffer()
    const small = Buffer.alloc(128 * 128 * 3)
    for (let i = 0; i < small.length; i++) {
      const at = (Math.floor(i / 384) * 512 + 2 * (Math.floor(i / 3) % 128)) * 3 + (i % 3)
      const sum = [0, 3, 768, 771].reduce((total, beside) => total + (truth[at + beside] ?? 0), 0)
      small[i] = Math.round(sum / 4)
    }
    const picture = await upload(
      await sharp(small, { raw: { width: 128, height: 128, channels: 3 } })
        .png()
        .toBuffer(),
    )
    const decibels = (png: Buffer): number => {
      const { data, width, height } = decode(png)
      expect([width, height]).toEqual([256, 256])
      const squares = truth.reduce((total, value, i) => total + (value - (data[i] ?? 0)) ** 2, 0)
      return 10 * Math.log10((255 * 255 * truth.length) / squares)
    }
    const [network, filter] = await Promise.all([upscaled({ picture, upscaler }), upscaled({ picture, upscaler: 'bicubic' })])
    expect(decibels(network)).toBeGreaterThan(decibels(filter) + 3)
    const { json } = await farm.client.get('/v1/models?kind=upscaler')
    const [{ bodyHash } = { bodyHash: null }] = (json as { models: { bodyHash: string }[] }).models
    const receipt = JSON.parse(readPngTexts(network)['darkroom'] ?? '') as { exactness: { key: string } }
    expect(receipt).toEqual({
      workflow: 'image-upscale@1',
      input: { picture: { sha256: picture, ...size }, upscaler: { id: upscaler, bodyHash }, width: 256, height: 256, network: 'Compact' },
      exactness: { key: expect.stringMatching(/^[0-9a-f]{8}$/) as string, facts: expect.anything() as unknown },
    })
    const [other, { json: loaded }] = await Promise.all([
      upscaled({ picture, upscaler, tile: 64 }),
      farm.client.post(`/v1/models/${encodeURIComponent(upscaler)}/load`, undefined, { Prefer: 'wait=60' }),
    ])
    expect(other).toEqual(network)
    expect(loaded).toMatchObject({ id: upscaler, wasResident: true })
  })

  it('keeps its transparency where it is enlarged', { timeout: slow }, async () => {
    const { data, width, height } = decode(first.bytes)
    const clear = await sharp(data, { raw: { width, height, channels: 3 } })
      .joinChannel(
        await sharp(await rightOf(64))
          .extractChannel(0)
          .raw()
          .toBuffer(),
        { raw: { width, height, channels: 1 } },
      )
      .png()
      .toBuffer()
    const made = decode(await upscaled({ picture: await upload(clear), upscaler, factor: 1.5 }))
    expect([made.width, made.height, made.channels]).toEqual([192, 192, 4])
    expect([made.data[3], made.data[191 * 4 + 3]]).toEqual([0, 255])
  })

  it('is drawn over what an upscaler has enlarged, and from its own receipt again', { timeout: slow }, async () => {
    const hires = { upscaler, steps: 2, strength: 0.5 }
    const id = await farm.submit({ prompt, seed: 8, steps: 4, ...size, hires })
    const [sha256 = ''] = await farm.pictures(id, slow)
    expect(readPngTexts(await bytesOf(sha256))['parameters']).toContain(`Hires upscaler: ${upscaler}`)
    const { json: told } = await farm.client.get(`/v1/artifacts/${sha256}/request`)
    expect(told).toMatchObject({ unread: [], input: { hires: { upscaler, width: 256 } } })
    expect(await farm.pictures(await farm.submit(told.input), slow)).toEqual([sha256])
    const [plain] = await farm.pictures(
      await farm.submit({ prompt, seed: 8, steps: 4, ...size, hires: { ...hires, upscaler: 'lanczos' } }),
      slow,
    )
    expect(plain).not.toBe(sha256)
  })

  it.each([
    [{ upscaler: 'none' }, 'model.unknown', 'upscaler', /there is no upscaler .none.; usable are: darkroom-tiny/],
    [{ upscaler: 'darkroom-tiny' }, 'model.unknown', 'upscaler', /.darkroom-tiny. is no upscaler but a checkpoint/],
    [{ upscaler, factor: 9 }, 'api.invalid', 'factor', /at most 8/],
    [{ upscaler, factor: 2, width: 300 }, 'api.invalid', 'factor', /beside a width or a height/],
    [{ upscaler, width: 16_384 }, 'api.invalid', 'width', /16384 · 16384 = 268435456 pixels, and 67108864 are the most/],
    [{ upscaler: 'lanczos', tile: 64 }, 'api.invalid', 'tile', /lanczos computes no tiles/],
    [{ upscaler, tile: 100 }, 'api.invalid', 'tile', /multiple of 64/],
    [{ upscaler, picture: '0'.repeat(64) }, 'artifact.unknown', 'picture', /./],
    [{ upscaler, scale: 2 }, 'api.invalid', '', /scale/],
  ])('%j is refused where it is to be enlarged', async (input, code, field, words) => {
    const { status, json } = await farm.client.post('/v1/images/upscale', { picture: first.sha256, ...input })
    expect({ status, ...(json as object) }).toMatchObject({ code, ...(field && { field }) })
    expect(status).toBeGreaterThanOrEqual(400)
    expect(JSON.stringify(json).replaceAll('\\"', '"')).toMatch(words)
  })

  const edges = 'darkroom-tiny/controlnet-edge'

  it('steers what is drawn by its edges, as it is or as the picture that a preprocessor makes of it', { timeout: slow }, async () => {
    const request = { prompt: 'a green star on black', seed: 50, steps, ...size }
    const canny = { name: 'canny', low: 50, high: 100 }
    const asked = { workflow: 'image-preprocess', input: { picture: first.sha256, preprocessor: canny } }
    const made = await farm.until((await farm.client.post('/v1/sessions', asked)).json.id as string, 'succeeded', slow)
    const [shown] = made.output?.images ?? []
    expect(shown).toMatchObject({ ...size, mediaType: 'image/png', url: `/v1/artifacts/${shown?.sha256}` })
    const seen = await bytesOf(shown?.sha256 ?? '')
    expect(new Set(decode(seen).data)).toEqual(new Set([0, 255]))
    expect(JSON.parse(readPngTexts(seen)['darkroom'] ?? '')).toEqual({
      workflow: 'image-preprocess@1',
      input: { picture: { sha256: first.sha256, ...size }, preprocessor: canny, ...size },
    })
    const drawnWith = async (control: object[]): Promise<Buffer> =>
      bytesOf((await farm.pictures(await farm.submit({ ...request, control }), slow))[0] ?? '')
    const byFile = await drawnWith([{ model: edges, picture: shown?.sha256 }])
    const byPicture = await drawnWith([{ model: edges, picture: first.sha256, preprocessor: canny }])
    const [plain = ''] = await farm.pictures(await farm.submit(request), slow)
    expect(decode(byPicture).data).toEqual(decode(byFile).data)
    expect(decode(byPicture).data).not.toEqual(decode(await bytesOf(plain)).data)
    const receipt = JSON.parse(readPngTexts(byPicture)['darkroom'] ?? '') as { input: { control: object[] } }
    expect(receipt.input.control).toEqual([
      {
        model: { id: edges, bodyHash: expect.stringMatching(/^[0-9a-f]{64}$/) as string },
        picture: { sha256: first.sha256, ...size },
        resize: 'crop',
        preprocessor: canny,
        weight: 1,
        start: 0,
        end: 1,
        mode: 'balanced',
      },
    ])
    await eventually('the ControlNet is resident beside the model', async () => {
      const [worker] = (await farm.client.get('/v1/workers')).json.workers as { resident: string[] }[]
      return [edges, 'darkroom-tiny'].every((id) => worker?.resident.includes(id)) || undefined
    })
  })

  it('is refused by name where the ControlNet is none, or its picture is nobody’s', async () => {
    const refused = async (control: object): Promise<unknown> =>
      (await farm.client.post('/v1/sessions', { workflow: 'image-generation', input: { prompt, control: [control] } })).json
    expect(await refused({ model: 'darkroom-tiny', picture: first.sha256 })).toMatchObject({
      status: 422,
      code: 'model.unknown',
      field: 'input.control.0.model',
      detail: expect.stringMatching(/"darkroom-tiny" is no controlnet but a checkpoint/) as string,
    })
    expect(await refused({ model: 'none', picture: first.sha256 })).toMatchObject({ code: 'model.unknown', field: 'input.control.0.model' })
    expect(await refused({ model: edges, picture: '0'.repeat(64) })).toMatchObject({
      code: 'artifact.unknown',
      field: 'input.control.0.picture',
    })
  })

  it('of a LoRA is pinned, hashed by the session, and leaves no trace in the next one', { timeout: slow }, async () => {
    const request = { prompt, seed: 8, steps, ...size }
    const [one, other, tagged] = await Promise.all([
      farm.submit({ ...request, adapters: [{ model: 'pastel', weight: 0.8 }, { model: 'outline' }] }),
      farm.submit(request),
      farm.submit({ ...request, prompt: `${prompt} <lora:pastel:0.8><lora:outline:1>`, promptAdapters: true }),
    ])
    const shas = await Promise.all([one, other, tagged].map(async (id) => (await farm.pictures(id, slow))[0] ?? ''))
    const model = (await farm.get(other)).input['model'] as string
    const status = async () => (await farm.client.get(`/v1/models/${model}/status`)).json as ModelStatus
    // What a session wears stays until another one draws with the model.
    await farm.until(await farm.submit({ ...request, steps: 1, adapters: [{ model: 'pastel', weight: 0.5 }] }), 'succeeded', slow)
    await eventually('it is told', async () =>
      (await status()).resident[0]?.patchedBy.some(({ id, part, weight }) => id === 'pastel' && part === 'unet' && weight === 0.5),
    )
    expect(shas[1]).toBe(first.sha256)
    expect(shas[0]).toBe(shas[2])
    expect(shas[0]).not.toBe(first.sha256)
    const lying = (await farm.client.get('/v1/models?kind=lora')).json as { models: { id: string; bodyHash: string | null }[] }
    const hashOf = (id: string) => lying.models.find((model) => model.id === id)?.bodyHash
    const { input } = JSON.parse(readPngTexts(await bytesOf(shas[0] ?? ''))['darkroom'] ?? '') as { input: Record<string, unknown> }
    expect(input['adapters']).toEqual([
      { model: { id: 'pastel', bodyHash: hashOf('pastel') }, weight: 0.8 },
      { model: { id: 'outline', bodyHash: hashOf('outline') }, weight: 1 },
    ])
    expect(hashOf('pastel')).toMatch(/^[0-9a-f]{64}$/)
    expect(readPngTexts(await bytesOf(shas[0] ?? ''))['parameters']).toContain(`${prompt} <lora:pastel:0.8><lora:outline:1>\n`)
    expect(input).toMatchObject({ prompt })
    // By the session's first steps, where nobody had yet.
    const said = (await farm.get(one)).input['adapters'] as { model: { bodyHash: string | null } }[]
    const isOpen = said.some(({ model }) => model.bodyHash === null)
    expect((await farm.receipt(one)).steps.some(({ step }) => step === 'model.hash')).toBe(isOpen)
  })

  it.each([
    [
      { adapters: [{ model: 'pastl' }] },
      'model.unknown',
      'input.adapters.0.model',
      /there is no lora .pastl.; usable are: outline, pastel, pastel-kohya/,
    ],
    [{ adapters: [{ model: 'darkroom-tiny' }] }, 'model.unknown', 'input.adapters.0.model', /.darkroom-tiny. is no lora but a checkpoint/],
    [{ adapters: [{ model: 'pastel', weight: 11 }] }, 'api.invalid', 'input.adapters.0.weight', /must be from -10 to 10/],
    [{ adapters: [{ model: 'pastel' }, { model: 'pastel' }] }, 'api.invalid', 'input.adapters.1', /a second time/],
    [{ prompt: '<lora:nothing> a', promptAdapters: true }, 'model.unknown', 'input.prompt', /there is no lora .nothing./],
    [{ prompt: 'a', embeddings: ['bad'] }, 'model.unknown', 'input.embeddings.0', /there is no embedding .bad.; none can be used here/],
  ])('%j is refused by name', async (input, code, field, words) => {
    const { status, json } = await farm.client.post('/v1/sessions', { workflow: 'image-generation', input: { prompt: 'a', ...input } })
    expect({ status, ...(json as object) }).toMatchObject({ status: 422, code, field })
    expect((json as { detail: string }).detail).toMatch(words)
  })
})
