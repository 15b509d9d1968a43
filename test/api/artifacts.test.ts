/** Pictures come in: what is taken and how it is kept, what is refused and why, who sees it, and what may name it. */
import { mkdir, writeFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { dirname, join } from 'node:path'
import { deflateSync } from 'node:zlib'
import { decode } from 'fast-png'
import sharp, { type Sharp } from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { collectAgeMs } from '../../src/artifacts/collector.ts'
import { fetchPicture } from '../../src/artifacts/remote.ts'
import { sha256Of } from '../../src/artifacts/store.ts'
import { keys } from '../../src/keys.ts'
import { ApiClient, type Answer } from '../support/http.ts'
import { modelFiles } from '../support/model.ts'
import { jpegWith, pngWith, tEXt, tiffWith, unicodeComment, zTXt } from '../support/pictures.ts'
import { startReceiver, status, type Receiver } from '../support/receiver.ts'
import { eventually } from '../support/wait.ts'
import { picture, sketchOf, startHarness, type Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

const red = { r: 220, g: 40, b: 40 }
/** Every printer has it. */
const dull = { r: 150, g: 120, b: 100 }
const blank = (width = 32, height = 24, background: { r: number; g: number; b: number; alpha?: number } = red): Sharp =>
  sharp({ create: { width, height, channels: background.alpha === undefined ? 3 : 4, background } })
/** Of another colour each time: no test sees what another has sent. */
let shade = 0
const fresh = (width = 32, height = 24): Sharp => blank(width, height, { r: 10 + ++shade, g: 200, b: 20 })

const upload = (body: Uint8Array, type = 'application/octet-stream', client: ApiClient = h.client): Promise<Answer> =>
  client.request('POST', '/v1/artifacts', { headers: { 'Content-Type': type }, body })

const boundary = '------------darkroom-7Yq0fE1'
const form = (...parts: [name: string, bytes: Uint8Array | string][]): { type: string; body: Buffer } => ({
  type: `multipart/form-data; boundary=${boundary}`,
  body: Buffer.concat([
    ...parts.flatMap(([name, bytes]) => [
      Buffer.from(
        `--${boundary}\r\nContent-Disposition: form-data; name="${name}"${typeof bytes === 'string' ? '' : '; filename="a.png"'}\r\n\r\n`,
      ),
      Buffer.from(bytes),
      Buffer.from('\r\n'),
    ]),
    Buffer.from(`--${boundary}--\r\n`),
  ]),
})

async function pixelOf(sha256: string, at = 0): Promise<number[]> {
  const { bytes } = await h.client.get(`/v1/artifacts/${sha256}`)
  const { data, channels, depth } = decode(bytes)
  expect(depth).toBe(8)
  return Array.from(data.slice(at * channels, (at + 1) * channels))
}

describe('what is taken', () => {
  it.each(['png', 'jpeg', 'webp', 'avif'] as const)('%s, as the body or in a form, and always as the same PNG', async (format) => {
    const file = await blank().toFormat(format).toBuffer()
    const raw = await upload(file, `image/${format}`)
    const inForm = form(['file', file])
    const formed = await upload(inForm.body, inForm.type)
    expect(raw.status).toBe(201)
    expect(raw.json).toMatchObject({ mediaType: 'image/png', width: 32, height: 24, hasAlpha: false })
    expect(formed.json).toEqual(raw.json)
    expect(raw.headers['location']).toBe(raw.json.url)
    const kept = await h.client.get(raw.json.url)
    expect(kept.headers['content-type']).toBe('image/png')
    expect(sha256Of(kept.bytes)).toBe(raw.json.sha256)
    expect(kept.bytes).toHaveLength(raw.json.bytes)
    // What came out goes in again as itself.
    expect((await upload(kept.bytes, 'image/png')).json.sha256).toBe(raw.json.sha256)
  })

  it('a picture that lies on its side, upright', async () => {
    const file = await sharp({ create: { width: 32, height: 8, channels: 3, background: red } })
      .composite([{ input: await blank(4, 8, { r: 0, g: 0, b: 250 }).png().toBuffer(), left: 0, top: 0 }])
      .withMetadata({ orientation: 6 })
      .png()
      .toBuffer()
    const { json } = await upload(file, 'image/png')
    expect(json).toMatchObject({ width: 8, height: 32 })
    expect(await pixelOf(json.sha256, 0)).toEqual([0, 0, 250])
    expect(await pixelOf(json.sha256, 8 * 31)).toEqual([220, 40, 40])
  })

  it('colours of another space, as they look in sRGB', async () => {
    const file = await blank(8, 8, { r: 200, g: 100, b: 100 }).withIccProfile('p3').png().toBuffer()
    const held = (await sharp(file, { ignoreIcc: true }).raw().toBuffer()).subarray(0, 3)
    expect([...held]).not.toEqual([200, 100, 100])
    const { json } = await upload(file, 'image/png')
    for (const [i, value] of (await pixelOf(json.sha256)).entries()) expect(Math.abs(value - ([200, 100, 100][i] ?? 0))).toBeLessThan(4)
  })

  it.each([
    ['CMYK', () => blank(8, 8, dull).toColourspace('cmyk').jpeg({ quality: 100 })],
    ['16 bits', () => blank(8, 8, dull).toColourspace('rgb16').png()],
    ['a palette', () => blank(8, 8, dull).png({ palette: true })],
    ['one pixel', () => blank(1, 1, dull).png()],
    ['an interlaced file', () => blank(8, 8, dull).png({ progressive: true })],
  ])('%s', async (_, made) => {
    const { json } = await upload(await made().toBuffer())
    for (const [i, value] of (await pixelOf(json.sha256)).entries())
      expect(Math.abs(value - (Object.values(dull)[i] ?? 0))).toBeLessThan(14)
  })

  it('grey, as RGB', async () => {
    const { json } = await upload(await blank(8, 8, { r: 90, g: 90, b: 90 }).toColourspace('b-w').png().toBuffer())
    expect(await pixelOf(json.sha256)).toEqual([90, 90, 90])
  })

  it('transparency where there is any, and none where all is opaque', async () => {
    const clear = await upload(
      await blank(8, 8, { ...red, alpha: 0.5 })
        .png()
        .toBuffer(),
    )
    expect(clear.json).toMatchObject({ hasAlpha: true })
    expect(await pixelOf(clear.json.sha256)).toEqual([220, 40, 40, 128])
    const opaque = await upload(
      await blank(8, 8, { ...red, alpha: 1 })
        .png()
        .toBuffer(),
    )
    expect(opaque.json).toMatchObject({ hasAlpha: false })
    expect(await pixelOf(opaque.json.sha256)).toEqual([220, 40, 40])
  })

  it('nothing of what else the file says', async () => {
    const file = await fresh()
      .withExif({ IFD0: { Copyright: 'Ada of Secret Street' } })
      .jpeg()
      .toBuffer()
    expect(file.toString('latin1')).toContain('Secret Street')
    const { json } = await upload(file, 'image/jpeg')
    expect((await h.client.get(json.url)).bytes.toString('latin1')).not.toContain('Secret')
  })
})

describe('what is refused', () => {
  const svg = Buffer.from(
    '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8"/></svg>',
  )

  /** A PNG that says it has so many pixels, and has none. */
  async function bomb(width: number, height: number): Promise<Buffer> {
    const file = await blank(8, 8).png().toBuffer()
    const { crc32 } = await import('node:zlib')
    file.writeUInt32BE(width, 16)
    file.writeUInt32BE(height, 20)
    file.writeUInt32BE(crc32(file.subarray(12, 29)), 29)
    return file
  }

  /** An animated PNG by its `acTL` alone, which decoders that do not know it pass over. */
  async function animatedPng(): Promise<Buffer> {
    const file = await blank(8, 8).png().toBuffer()
    const { crc32 } = await import('node:zlib')
    const chunk = Buffer.alloc(20)
    chunk.writeUInt32BE(8, 0)
    chunk.write('acTL', 4, 'latin1')
    chunk.writeUInt32BE(2, 8)
    chunk.writeUInt32BE(crc32(chunk.subarray(4, 16)), 16)
    return Buffer.concat([file.subarray(0, 33), chunk, file.subarray(33)])
  }

  const frames = (): Sharp =>
    sharp(Buffer.concat([Buffer.alloc(8 * 8 * 3, 7), Buffer.alloc(8 * 8 * 3, 250)]), {
      raw: { width: 8, height: 16, channels: 3, pageHeight: 8 },
    })
  const half = async (made: Sharp): Promise<Buffer> => {
    const file = await made.toBuffer()
    return file.subarray(0, Math.floor(file.length / 2))
  }
  const busy = (): Sharp =>
    sharp(Buffer.from(Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 7919) % 251)), { raw: { width: 64, height: 64, channels: 3 } })

  it.each([
    ['an SVG', 415, 'artifact.format', /SVG/, () => svg],
    ['a GIF', 415, 'artifact.format', /GIF/, () => blank(8, 8).gif().toBuffer()],
    ['a TIFF', 415, 'artifact.format', /TIFF/, () => blank(8, 8).tiff().toBuffer()],
    ['a text', 415, 'artifact.format', /no format/, () => Buffer.from('a red circle')],
    ['nothing', 415, 'artifact.format', /empty/, () => Buffer.alloc(0)],
    [
      'an animated WebP',
      422,
      'artifact.animated',
      /frames/,
      () =>
        frames()
          .webp({ loop: 0, delay: [100, 100] })
          .toBuffer(),
    ],
    ['an animated PNG', 422, 'artifact.animated', /animated/, animatedPng],
    ['half a JPEG', 422, 'artifact.broken', /decoded/, () => half(busy().jpeg())],
    ['half a PNG', 422, 'artifact.broken', /decoded/, () => half(busy().png())],
    ['half a WebP', 422, 'artifact.broken', /decoded/, () => half(busy().webp({ lossless: true }))],
    ['half an AVIF', 422, 'artifact.broken', /decoded/, () => half(busy().avif())],
    ['a bomb', 413, 'artifact.too_many_pixels', /60000 × 60000 pixels, and 33554432/, () => bomb(60_000, 60_000)],
    ['a long bomb', 413, 'artifact.too_many_pixels', /pixels/, () => bomb(2_000_000, 20)],
    ['a header alone', 422, 'artifact.broken', /decoded/, async () => (await blank().png().toBuffer()).subarray(0, 40)],
  ] as [string, number, string, RegExp, () => Promise<Buffer> | Buffer][])('%s', async (_, status, code, says, made) => {
    const answer = await upload(await made())
    expect(answer.json).toMatchObject({
      status,
      code,
      field: 'body',
      detail: expect.stringMatching(says),
      remedy: expect.stringMatching(/^\w/),
    })
  })

  it.each(['text/plain', 'application/xml', 'image/svg+xml', 'text/html; image/png'])('a body of type %s', async (type) => {
    const answer = await upload(await blank().png().toBuffer(), type)
    expect(answer.json).toMatchObject({ status: 415, code: 'api.unsupported_media_type', field: 'Content-Type' })
    expect(answer.json.detail).toContain('image/png')
  })

  it('a body over the limit, before it is read', async () => {
    const answer = await upload(Buffer.alloc(64 * 2 ** 20 + 8192))
    expect(answer.json).toMatchObject({ status: 413, code: 'api.too_large', field: 'body', remedy: expect.stringContaining('64 MiB') })
  })

  it.each([
    ['no file', 'file', () => form()],
    ['a text for a file', 'file', () => form(['file', 'a'])],
    ['another field', 'image', () => form(['image', Buffer.from('a')])],
    ['a field beside it', 'note', () => form(['file', Buffer.from('a')], ['note', 'x'])],
    ['two files', 'file', () => form(['file', Buffer.from('a')], ['file', Buffer.from('b')])],
  ])('a form with %s', async (_, field, made) => {
    const { body, type } = made()
    expect((await upload(body, type)).json).toMatchObject({ status: 422, code: 'api.invalid', field })
  })

  it('a form that is none', async () => {
    expect((await upload(Buffer.from('--y\r\nnonsense'), 'multipart/form-data; boundary=x')).json).toMatchObject({
      status: 400,
      code: 'api.malformed',
    })
  })

  it('a form that a page of another site sends', async () => {
    const { body, type } = form(['file', await blank().png().toBuffer()])
    const answer = await h.client.request('POST', '/v1/artifacts', {
      headers: { 'Content-Type': type, Origin: 'https://evil.example' },
      body,
    })
    expect(answer.json).toMatchObject({ status: 403, code: 'api.origin_refused' })
  })

  it('leaves nothing of any of them in the store', async () => {
    const { readdir } = await import('node:fs/promises')
    expect(await readdir(`${h.config.data}/artifacts/parts`).catch(() => [])).toEqual([])
  })
})

describe('what a picture says of its request', () => {
  const requestOf = async (sha256: string, client: ApiClient = h.client): Promise<Answer> => client.get(`/v1/artifacts/${sha256}/request`)
  const uploaded = async (file: Uint8Array): Promise<string> => (await upload(file)).json.sha256 as string
  const settings = 'Steps: 12, Sampler: Euler a, CFG scale: 5, Seed: 9, Size: 64x128'

  it('is kept with the picture that is uploaded, and is a request that can be sent', async () => {
    const id = await uploaded(
      pngWith(tEXt('parameters', `a star\n${settings}, Model: darkroom-tiny, Version: v1.9`), tEXt('Comment', 'private')),
    )
    expect((await h.client.get(`/v1/artifacts/${id}`)).bytes.toString('latin1')).not.toContain('private')
    const answer = await requestOf(id)
    expect(answer).toMatchObject({ status: 200 })
    expect(answer.json).toEqual({
      source: 'a1111',
      workflow: 'image-generation',
      input: { prompt: 'a star', steps: 12, sampler: 'Euler a', guidance: 5, seed: 9, width: 64, height: 128, model: 'darkroom-tiny' },
      modelHash: null,
      unread: [],
    })
    const sent = await h.client.post('/v1/sessions', { workflow: answer.json.workflow, input: answer.json.input })
    expect(sent.json.input).toMatchObject({ seed: 9, sampler: 'Euler a', height: 128 })
    // The same pixels without the text are another picture.
    expect(await uploaded(pngWith())).not.toBe(id)
  })

  it('of a JPEG is in its EXIF', async () => {
    const [plain, tiff] = [
      await fresh().jpeg().toBuffer(),
      tiffWith({ tag: 0x9286, value: unicodeComment(`猫\n${settings}`), isLittle: false }),
    ]
    const exif = jpegWith(tiff)
    // The segment stands behind the first two bytes; an APP0 and the end of the other are left out.
    const file = Buffer.concat([plain.subarray(0, 2), exif.subarray(8, -2), plain.subarray(2)])
    expect((await requestOf(await uploaded(file))).json).toMatchObject({ source: 'a1111', input: { prompt: '猫', seed: 9 } })
  })

  it('names the model that has the name or the hash, and says where none has', async () => {
    const { bodyHash } = (await h.client.get('/v1/models/darkroom-tiny')).json
    const ask = async (model: string): Promise<Answer['json']> =>
      (await requestOf(await uploaded(pngWith(tEXt('parameters', `x\n${settings}, ${model}`))))).json
    expect(await ask(`Model hash: ${bodyHash.slice(0, 10)}, Model: elsewhere`)).toMatchObject({
      input: { model: 'darkroom-tiny' },
      unread: [],
    })
    const unknown = await ask('Model hash: 0123456789, Model: elsewhere')
    expect(unknown.input).not.toHaveProperty('model')
    expect(unknown.unread).toEqual([{ name: 'model', value: 'elsewhere', why: expect.stringMatching(/no model of that name or hash/) }])
  })

  it('leaves out what the workflow refuses, and says why', async () => {
    const text = 'x\nSteps: 900, Sampler: Euler a, CFG scale: 70, Seed: 9, Size: 16x128, Hires upscale: 20, Hires upscaler: Latent'
    const { input, unread } = (await requestOf(await uploaded(pngWith(tEXt('parameters', text))))).json
    expect(input).toEqual({ prompt: 'x', sampler: 'Euler a', seed: 9, height: 128, hires: { upscaler: 'latent' } })
    expect(Object.fromEntries(unread.map(({ name, why }: { name: string; why: string }) => [name, why]))).toEqual({
      steps: expect.stringMatching(/200/),
      guidance: expect.stringMatching(/50/),
      width: 'must be at least 64',
      'hires.scale': 'must be at most 8',
    })
  })

  it('is no text that a stranger has made to do harm', async () => {
    const bomb = zTXt('parameters', deflateSync(Buffer.alloc(64 * 2 ** 20, 'a')))
    const deep = tEXt('prompt', `{"1":${'['.repeat(200_000)}${']'.repeat(200_000)}}`)
    for (const [file, says] of [
      [pngWith(bomb), /nothing in the picture tells/],
      [pngWith(deep), /nested more than 100 deep/],
      [pngWith(), /nothing in the picture tells/],
    ] as const)
      expect((await requestOf(await uploaded(file))).json).toMatchObject({
        status: 404,
        code: 'artifact.untold',
        detail: expect.stringMatching(says),
        remedy: expect.stringMatching(/\w/),
      })
    expect((await requestOf('0'.repeat(64))).json).toMatchObject({ status: 404, code: 'artifact.unknown' })
    expect((await requestOf('x')).json).toMatchObject({ status: 404, code: 'artifact.unknown' })
  })
})

describe('the thumbnail of an upload', () => {
  const thumbnailOf = (sha256: string, headers = {}): Promise<Answer> =>
    h.client.request('GET', `/v1/artifacts/${sha256}?size=256`, { headers })

  it('is a WebP of at most 256 pixels a side that shows the same, upright', async () => {
    const stripe = await blank(600, 50, { r: 0, g: 0, b: 250 }).png().toBuffer()
    const file = await blank(600, 300)
      .composite([{ input: stripe, left: 0, top: 0 }])
      .withMetadata({ orientation: 6 })
      .png()
      .toBuffer()
    const { json } = await upload(file, 'image/png')
    const { status, headers, bytes } = await thumbnailOf(json.sha256)
    expect({ status, type: headers['content-type'], length: Number(headers['content-length']) }).toEqual({
      status: 200,
      type: 'image/webp',
      length: bytes.length,
    })
    const { data, info } = await sharp(bytes).removeAlpha().raw().toBuffer({ resolveWithObject: true })
    expect(info).toMatchObject({ width: 128, height: 256, channels: 3 })
    const at = (x: number): number[] => [...data.subarray((128 * 128 + x) * 3, (128 * 128 + x) * 3 + 3)]
    for (const [x, colour] of [
      [30, [220, 40, 40]],
      [122, [0, 0, 250]],
    ] as const)
      for (const [i, value] of colour.entries()) expect(Math.abs((at(x)[i] ?? 0) - value)).toBeLessThan(12)
  })

  it('never enlarges, and keeps what is transparent', async () => {
    const { json } = await upload(
      await blank(20, 10, { ...red, alpha: 0.5 })
        .png()
        .toBuffer(),
    )
    expect(await sharp((await thumbnailOf(json.sha256)).bytes).metadata()).toMatchObject({ width: 20, height: 10, hasAlpha: true })
  })

  it('is cached for ever under a name of its own, and comes in parts', async () => {
    const { json } = await upload(await fresh(300, 300).png().toBuffer())
    const { headers, bytes } = await thumbnailOf(json.sha256)
    const etag = `"${json.sha256}-256"`
    expect(headers).toMatchObject({ etag, 'cache-control': 'private, max-age=31536000, immutable' })
    expect((await thumbnailOf(json.sha256, { 'If-None-Match': etag })).status).toBe(304)
    expect((await thumbnailOf(json.sha256, { 'If-None-Match': `"${json.sha256}"` })).status).toBe(200)
    const part = await thumbnailOf(json.sha256, { Range: 'bytes=0-3' })
    expect({ status: part.status, text: part.bytes.toString() }).toEqual({ status: 206, text: 'RIFF' })
    expect((await h.client.request('HEAD', `/v1/artifacts/${json.sha256}?size=256`)).headers['content-length']).toBe(String(bytes.length))
  })

  it('is made when it is asked for where none lies beside the picture, once for all who ask', async () => {
    const { json: session } = await h.client.post('/v1/sessions', sketchOf('without a thumbnail'))
    const sha256 = await h.finish(session.id, await fresh(400, 100).png().toBuffer())
    expect(await h.artifacts.openThumbnail(sha256)).toBeUndefined()
    const answers = await Promise.all(Array.from({ length: 5 }, () => thumbnailOf(sha256)))
    expect(await sharp(answers[0]?.bytes).metadata()).toMatchObject({ format: 'webp', width: 256, height: 64 })
    expect(new Set(answers.map(({ status, bytes }) => `${status} ${sha256Of(bytes)}`)).size).toBe(1)
    expect((await h.artifacts.openThumbnail(sha256))?.size).toBe(answers[0]?.bytes.length)
  })

  it('is refused in words of what is no whole picture, of another size, and to who does not see the picture', async () => {
    const { json: session } = await h.client.post('/v1/sessions', sketchOf('half a picture'))
    const half = await h.finish(session.id, (await fresh(64, 64).png().toBuffer()).subarray(0, 40))
    expect((await thumbnailOf(half)).json).toMatchObject({
      status: 404,
      code: 'artifact.no_thumbnail',
      detail: expect.stringContaining(half),
      remedy: expect.stringMatching(/without `size`/),
    })
    const { json } = await upload(await fresh().png().toBuffer())
    for (const size of ['512', '0', '', '256.0', 'large'])
      expect((await h.client.get(`/v1/artifacts/${json.sha256}?size=${size}`)).json).toMatchObject({ status: 422, field: 'size' })
    expect((await thumbnailOf('0'.repeat(64))).json).toMatchObject({ status: 404, code: 'artifact.unknown' })
    expect((await thumbnailOf('../x')).status).toBe(404)
  })
})

describe('second passes and regions', () => {
  const submit = (input: Record<string, unknown>): Promise<Answer> => h.client.post('/v1/sessions', picture({ steps: 10, ...input }))
  const sent = async (width: number, height: number): Promise<string> =>
    (await upload(await fresh(width, height).png().toBuffer(), 'image/png')).json.sha256 as string

  it('are filled in', async () => {
    const usual = { upscaler: 'latent', strength: 0.6, steps: 10 }
    expect((await submit({ hires: {} })).json.input.hires).toEqual({ ...usual, width: 128, height: 128 })
    expect((await submit({ hires: { scale: 1.3 } })).json.input.hires).toEqual({ ...usual, width: 80, height: 80 })
    expect((await submit({ hires: { height: 96 } })).json.input.hires).toEqual({ ...usual, width: 96, height: 96 })
    const own = { hires: { width: 96, height: 192, steps: 3, strength: 1, sampler: 'dpmpp_2m_sde', schedule: 'karras', prompt: 'large' } }
    expect((await submit(own)).json.input.hires).toEqual({
      upscaler: 'latent',
      width: 96,
      height: 192,
      steps: 3,
      strength: 1,
      sampler: 'DPM++ 2M SDE',
      schedule: 'Karras',
      prompt: 'large',
    })
    const box = { left: 0, top: 64, width: 64, height: 64 }
    const mask = await sent(128, 128)
    const both = await submit({
      hires: {},
      detail: [{ box }, { mask, strength: 0.3, padding: 0, blur: 1, size: { width: 96, height: 64 }, prompt: 'an eye' }],
    })
    expect(both.json.input.detail).toEqual([
      { source: box, strength: 0.5, padding: 32, blur: 4, width: 64, height: 64 },
      { source: { sha256: mask, width: 128, height: 128 }, strength: 0.3, padding: 0, blur: 1, width: 96, height: 64, prompt: 'an eye' },
    ])
    expect(await h.engine.reads.references(both.json.id)).toContain(mask)
    for (const field of ['hires', 'detail']) expect((await submit({})).json.input).not.toHaveProperty(field)
  })

  const box = { left: 8, top: 8, width: 16, height: 16 }
  it.each([
    ['a scale beside a size', { hires: { scale: 2, width: 128 } }, 'input.hires.scale', /one of them/],
    ['a scale beyond', { hires: { scale: 9 } }, 'input.hires.scale', /at most 8/],
    ['a smaller size', { width: 128, hires: { width: 64 } }, 'input.hires.width', /at least that of the first pass, which is 128/],
    ['a side of no cells', { hires: { width: 100 } }, 'input.hires.width', /multiple of 8/],
    ['too many pixels', { hires: { width: 4096, height: 4096 } }, 'input.hires.width', /at most 4194304 pixels/],
    ['no strength', { hires: { strength: 0 } }, 'input.hires.strength', /above 0/],
    ['a schedule without an end', { hires: { strength: 0.009 } }, 'input.hires.strength', /a schedule of 1112/],
    ['an upscaler that there is not', { hires: { upscaler: 'ESRGAN' } }, 'input.hires.upscaler', /./],
    ['a sampler that there is not', { hires: { sampler: 'Warp' } }, 'input.hires.sampler', /nearest/],
    ['a schedule that its sampler does not take', { hires: { sampler: 'DDIM', schedule: 'Karras' } }, 'input.hires.schedule', /DDIM/],
    ['an unknown field', { hires: { denoise: 1 } }, 'input.hires.denoise', /no such field/],
    ['no region', { detail: [] }, 'input.detail', /name a region/],
    ['a region outside', { detail: [{ box: { ...box, left: 56 } }] }, 'input.detail.0.box', /16 × 16 at 56, 8 is not inside.*64 × 64/],
    ['a region below', { detail: [{ box }, { box: { ...box, top: 640 } }] }, 'input.detail.1.box', /not inside/],
    ['an empty region', { detail: [{ box: { ...box, width: 0 } }] }, 'input.detail.0.box.width', /./],
    ['a region of two kinds', { detail: [{ box, mask: '0'.repeat(64) }] }, 'input.detail.0', /one of `box` and `mask`/],
    ['a region of none', { detail: [{ strength: 0.5 }] }, 'input.detail.0', /one of `box` and `mask`/],
    ['a region that is not drawn', { detail: [{ box, strength: 0.05 }] }, 'input.detail.0.strength', /at least 0.1/],
    ['too many regions', { detail: Array.from({ length: 17 }, () => ({ box })) }, 'input.detail', /at most 16/],
  ] as [string, Record<string, unknown>, string, RegExp][])('are refused: %s', async (_, input, field, says) => {
    const { json } = await submit(input)
    const problems = (json.problems ?? [json]) as { field: string; message?: string; detail?: string }[]
    const found = problems.find((problem) => problem.field === field)
    expect({ status: json.status, problems, found }).toMatchObject({ status: 422, found: { field } })
    expect(found?.message ?? found?.detail).toMatch(says)
  })

  it('are refused over a picture, and with a mask of another size or of nobody', async () => {
    const id = await sent(64, 64)
    expect((await submit({ picture: id, hires: {} })).json).toMatchObject({
      status: 422,
      field: 'input.hires',
      detail: expect.stringMatching(/drawn from text/),
    })
    const small = await submit({ hires: {}, detail: [{ mask: id }] })
    expect(small.json).toMatchObject({ field: 'input.detail.0.mask', detail: expect.stringMatching(/64 × 64.*128 × 128/) })
    expect((await submit({ detail: [{ mask: '0'.repeat(64) }] })).json).toMatchObject({
      code: 'artifact.unknown',
      field: 'input.detail.0.mask',
    })
  })
})

describe('a picture by its URL', () => {
  let receiver: Receiver
  let client: ApiClient
  const allowed = { pictureHosts: ['127.0.0.1', 'pictures.example'], pictureNets: ['127.0.0.0/8'] }
  beforeAll(async () => {
    receiver = await startReceiver()
    client = new ApiClient((await h.another(allowed)).url)
  })
  afterAll(() => receiver[Symbol.asyncDispose]())

  const byUrl = (url: unknown, to: ApiClient = client): Promise<Answer> => to.post('/v1/artifacts', { url })
  const serves = (file: Uint8Array, headers: Record<string, string> = {}): void =>
    receiver.answers((response) => void response.writeHead(200, headers).end(file))

  it('is the artifact that its file is', async () => {
    const file = await fresh().webp().toBuffer()
    serves(file)
    const { status, json } = await byUrl(`${receiver.url}/a/b.webp?c=1`)
    expect([status, json.sha256]).toEqual([201, (await upload(file)).json.sha256])
    const { path, headers } = receiver.letters.at(-1) as { path: string; headers: Record<string, unknown> }
    expect([path, headers['authorization'], headers['accept-encoding']]).toEqual(['/a/b.webp?c=1', undefined, 'identity'])
  })

  it.each<[string, (response: ServerResponse) => void, string, RegExp]>([
    ['a redirect', status(302, { Location: 'http://127.0.0.1:1/' }), 'artifact.url_failed', /answered 302, and redirects are not followed/],
    ['a page that is not there', status(404), 'artifact.url_failed', /its server answered 404/],
    [
      'too many bytes by its own word',
      status(200, { 'Content-Length': String(2 ** 27) }),
      'artifact.url_failed',
      /has more than 67108864 bytes/,
    ],
    ['a packed body', status(200, { 'Content-Encoding': 'gzip' }), 'artifact.url_failed', /comes as gzip, which nobody asked for/],
    [
      'an end before its end',
      (response) => void response.writeHead(200, { 'Content-Length': '9' }).write('x', () => response.destroy()),
      'artifact.url_failed',
      /aborted|hang up/,
    ],
    [
      'a page',
      (response) => void response.writeHead(200, { 'Content-Type': 'image/png' }).end('<html>'),
      'artifact.format',
      /no format that is known/,
    ],
  ])('%s is refused', async (_, answer, code, words) => {
    receiver.answers(answer)
    const { status: refused, json } = await byUrl(receiver.url)
    expect([refused, json.code]).toEqual([code === 'artifact.format' ? 415 : 422, code])
    expect(json.detail).toMatch(words)
  })

  it('without an end, or too slow, is cut off', async () => {
    receiver.answers((response) => void response.writeHead(200).write(Buffer.alloc(5000)))
    await expect(fetchPicture(receiver.url, { config: allowed, maxBytes: 4000 })).rejects.toMatchObject({ code: 'artifact.url_failed' })
    receiver.answers((response) => void response.writeHead(200).write('x'))
    await expect(fetchPicture(receiver.url, { config: allowed, limitMs: 200 })).rejects.toThrow('it was not here within 0.2 s')
    await expect(
      fetchPicture('https://pictures.example/', { config: allowed, limitMs: 200, resolve: () => new Promise(() => {}) }),
    ).rejects.toThrow('it was not here within 0.2 s')
  })

  it('goes to the address that was judged, and to no private one besides', async () => {
    serves(await fresh().png().toBuffer())
    const url = `http://pictures.example:${receiver.port}/`
    const to =
      (...addresses: string[]) =>
      () =>
        Promise.resolve(addresses.map((address) => ({ address, family: 4 })))
    expect((await fetchPicture(url, { config: allowed, resolve: to('127.0.0.1') })).length).toBeGreaterThan(20)
    expect(receiver.letters.at(-1)?.headers['host']).toBe(`pictures.example:${receiver.port}`)
    for (const found of [['10.0.0.1'], ['127.0.0.1', '169.254.169.254']])
      await expect(fetchPicture(url, { config: allowed, resolve: to(...found) })).rejects.toMatchObject({ code: 'artifact.url_refused' })
  })

  it.each<[string, RegExp]>([
    ['http://169.254.169.254/latest/meta-data', /is not on a host of DARKROOM_PICTURE_HOSTS/],
    ['http://pictures.example.evil.example/', /is not on a host/],
    ['file:///etc/passwd', /is neither https nor http/],
    ['http://ann:secret@127.0.0.1/', /carries a password/],
    ['no url', /is no URL/],
  ])('%s is refused before anybody is called', async (url, words) => {
    const called = receiver.letters.length
    const { status: refused, json } = await byUrl(url)
    expect([refused, json.code, json.field]).toEqual([422, 'artifact.url_refused', 'url'])
    expect(json.detail).toMatch(words)
    expect(receiver.letters).toHaveLength(called)
  })

  it('is off where the operator allows no host, and its body is checked', async () => {
    expect((await byUrl(receiver.url, h.client)).json).toMatchObject({ code: 'artifact.url_refused', field: 'url' })
    expect((await client.post('/v1/artifacts', {})).json).toMatchObject({ code: 'api.invalid', problems: [{ field: 'url' }] })
    expect((await byUrl(7)).json).toMatchObject({ code: 'api.invalid' })
    expect((await client.post('/v1/artifacts', { url: 'https://pictures.example/', more: 1 })).json).toMatchObject({ code: 'api.invalid' })
    const broken = await client.request('POST', '/v1/artifacts', {
      headers: { 'Content-Type': 'application/json' },
      body: Buffer.from('{'),
    })
    expect(broken.json).toMatchObject({ code: 'api.malformed' })
  })
})

describe('what a picture is to a session', () => {
  const submit = (input: Record<string, unknown>, client: ApiClient = h.client): Promise<Answer> =>
    client.post('/v1/sessions', picture({ steps: 10, ...input }))
  const sent = async (made: Sharp, client: ApiClient = h.client): Promise<string> =>
    (await upload(await made.png().toBuffer(), 'image/png', client)).json.sha256 as string

  it('is pinned with its size, and what is left out is filled in', async () => {
    const [id, mask] = [await sent(fresh(40, 30)), await sent(fresh(40, 30))]
    const plain = await submit({})
    for (const field of ['picture', 'strength', 'resize', 'mask']) expect(plain.json.input).not.toHaveProperty(field)
    const over = await submit({ picture: id })
    expect(over.json.input).toMatchObject({ picture: { sha256: id, width: 40, height: 30 }, strength: 0.75, resize: 'crop' })
    expect(over.json.input).not.toHaveProperty('mask')
    const masked = await submit({ picture: id, strength: 1, mask: { source: mask, area: 'masked' } })
    expect(masked.json.input.mask).toEqual({
      source: { sha256: mask, width: 40, height: 30 },
      invert: false,
      grow: 0,
      blur: 4,
      fill: 'original',
      area: 'masked',
      padding: 32,
    })
    expect(masked.json.input).not.toHaveProperty('resize')
    expect((await submit({ picture: id, mask: { source: 'border' } })).json.input).toMatchObject({
      resize: 'pad',
      mask: { source: 'border' },
    })
  })

  it('may be one that a session has made', async () => {
    const made = await h.client.post('/v1/sessions', sketchOf('x'))
    const id = await h.finish(made.json.id, await fresh(24, 16).png().toBuffer())
    expect((await submit({ picture: id })).json.input.picture).toEqual({ sha256: id, width: 24, height: 16 })
  })

  it.each([
    ['strength below', { strength: -0.1 }, 'input.strength', /at least 0/],
    ['strength above', { strength: 1.01 }, 'input.strength', /at most 1/],
    ['strength that draws nothing', { strength: 0.09 }, 'input.strength', /less than one.*at least 0.1/],
    ['a way to resize that there is not', { resize: 'zoom' }, 'input.resize', /./],
    ['a mask of nothing', { mask: {} }, 'input.mask.source', /expected string/],
    ['a mask by a name', { mask: { source: 'mask.png' } }, 'input.mask.source', /id of a picture/],
    ['a mask’s unknown field', { mask: { source: 'border', feather: 3 } }, 'input.mask.feather', /no such field/],
    ['a blur beyond', { mask: { source: 'border', blur: 65 } }, 'input.mask.blur', /at most 64/],
    ['the alpha of an opaque picture', { mask: { source: 'alpha' } }, 'input.mask.source', /nothing transparent/],
    ['latents with a mask', { mask: { source: 'alpha' }, resize: 'latent' }, 'input.resize', /with a mask/],
    ['a border of a crop', { mask: { source: 'border' }, resize: 'crop' }, 'input.resize', /must be pad/],
    ['a border drawn by itself', { mask: { source: 'border', area: 'masked' } }, 'input.mask.area', /whole/],
    ['a resize that is not used', { mask: { source: 'alpha', area: 'masked' }, resize: 'crop' }, 'input.resize', /not used/],
  ] as [string, Record<string, unknown>, string, RegExp][])('is refused with %s', async (_, input, field, says) => {
    const answer = await submit({ picture: await sent(blank(16, 16)), ...input })
    expect(answer.json).toMatchObject({ status: 422, code: 'api.invalid', field, detail: expect.stringMatching(says) })
  })

  it.each(['strength', 'resize', 'mask'])('is missing where %s speaks of it', async (field) => {
    const value = { strength: 0.5, resize: 'crop', mask: { source: 'border' } }[field]
    expect((await submit({ [field]: value })).json).toMatchObject({
      status: 422,
      field: `input.${field}`,
      detail: expect.stringMatching(/`picture`/),
    })
  })

  it('and its mask are of one size', async () => {
    const answer = await submit({ picture: await sent(blank(16, 16)), mask: { source: await sent(blank(16, 24)) } })
    expect(answer.json).toMatchObject({ status: 422, field: 'input.mask.source', detail: expect.stringMatching(/16 × 24.*16 × 16/) })
  })

  it('has a mask where the model draws behind masks alone', async () => {
    const index = { ...(modelFiles()['model_index.json'] as object), _class_name: 'StableDiffusionInpaintPipeline' }
    const files = { ...modelFiles(), 'model_index.json': index, 'unet/config.json': { sample_size: 16, in_channels: 9 } }
    for (const [file, content] of Object.entries(files)) {
      const path = join(h.config.models[0] ?? '', 'painter', file)
      await mkdir(dirname(path), { recursive: true })
      await writeFile(path, content instanceof Uint8Array || typeof content === 'string' ? content : JSON.stringify(content))
    }
    await h.client.post('/v1/models/rescan')
    await eventually(
      'the model is known',
      async () => (await h.client.get('/v1/models?text=painter')).json.models[0]?.status === 'usable' || undefined,
    )
    const id = await sent(blank(16, 16, { ...red, alpha: 0 }))
    for (const input of [{}, { picture: id }])
      expect((await submit({ model: 'painter', ...input })).json).toMatchObject({
        status: 422,
        field: 'input.mask',
        detail: expect.stringMatching(/painter/),
      })
    expect((await submit({ model: 'painter', picture: id, mask: { source: 'alpha' } })).status).toBe(202)
  })

  it('is a picture, and there', async () => {
    const latents = await h.artifacts.put(Buffer.from('latents'), 'scratch')
    for (const id of ['0'.repeat(64), latents])
      expect((await submit({ picture: id })).json).toMatchObject({ status: 422, code: 'artifact.unknown', field: 'input.picture' })
    expect((await submit({ picture: 'photo.png' })).json).toMatchObject({ status: 422, code: 'api.invalid', field: 'input.picture' })
    const gone = await sent(fresh())
    await h.artifacts.collect(() => Promise.resolve(false), -1000)
    expect((await submit({ picture: gone })).json).toMatchObject({ status: 422, code: 'artifact.unknown' })
    const noFile = await sent(fresh())
    expect((await submit({ picture: await sent(fresh()), mask: { source: '1'.repeat(64) } })).json).toMatchObject({
      field: 'input.mask.source',
    })
    expect((await submit({ picture: noFile })).status).toBe(202)
  })

  it('is spared by the collector while a session names it, and an hour long without', async () => {
    const [named, unnamed] = [await sent(fresh()), await sent(fresh())]
    const session = await submit({ picture: named })
    const isNamed = (sha256: string): Promise<boolean> => h.engine.reads.isNamed(sha256)
    await h.artifacts.collect(isNamed, collectAgeMs)
    expect(await h.artifacts.has(unnamed)).toBe(true)
    await h.artifacts.collect(isNamed, -1000)
    expect([await h.artifacts.has(named), await h.artifacts.has(unnamed)]).toEqual([true, false])
    await h.client.post(`/v1/sessions/${session.json.id}/cancel`)
    expect((await h.client.request('DELETE', `/v1/sessions/${session.json.id}`)).status).toBe(204)
    expect(await isNamed(named)).toBe(false)
  })

  // Keys close the farm to whoever has none: these come last.
  it('is seen by the key that sent it, and by who may see a session that names it', async () => {
    const [ada, bob] = [await h.withKey('submit', 'read', 'control'), await h.withKey('submit', 'read')]
    const [reader, operator] = [await h.withKey('read'), await h.withKey('submit', 'read', 'operate')]
    const file = await fresh().png().toBuffer()
    expect((await upload(file, 'image/png', reader)).json).toMatchObject({ status: 403, code: 'api.forbidden' })
    const id = (await upload(file, 'image/png', ada)).json.sha256 as string
    const seenBy = async (client: ApiClient): Promise<number> => (await client.get(`/v1/artifacts/${id}`)).status
    expect([await seenBy(ada), await seenBy(bob), await seenBy(operator)]).toEqual([200, 404, 200])
    expect((await submit({ picture: id }, bob)).json).toMatchObject({ status: 422, code: 'artifact.unknown', field: 'input.picture' })
    const own = await submit({ picture: id }, ada)
    expect(own.status).toBe(202)
    // The hour is over.
    await h.redis.del(keys.uploaders(id))
    expect([await seenBy(ada), await seenBy(bob)]).toEqual([200, 404])
    expect((await submit({ picture: id }, ada)).status).toBe(202)
    // A retry names it too.
    await ada.post(`/v1/sessions/${own.json.id}/cancel`)
    const again = await ada.post(`/v1/sessions/${own.json.id}/retry`)
    expect(again.json.input.picture.sha256).toBe(id)
    expect(await h.engine.reads.references(again.json.id)).toContain(id)
    // Who has the same picture may send it too.
    expect((await upload(file, 'image/png', bob)).json.sha256).toBe(id)
    expect(await seenBy(bob)).toBe(200)
    expect(await h.redis.pttl(keys.uploaders(id))).toBeGreaterThan(collectAgeMs - 60_000)
  })
})
