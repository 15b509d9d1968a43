/** Pictures beside models, as HTTP serves them: good ones, and those that lie, attack or lead elsewhere. */
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, symlink, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { z } from 'zod'
import { Newest } from '../../src/api/models/picture.ts'
import { pictureLimits } from '../../src/artifacts/picture.ts'
import type { Session } from '../../src/engine/session.ts'
import type { PinnedInput } from '../../src/workflows/built-in/pinning.ts'
import type { Answer } from '../support/http.ts'
import { safetensors } from '../support/model.ts'
import { eventually } from '../support/wait.ts'
import { startHarness, type Harness } from './harness.ts'

let h: Harness
let outside: string
const folder = (): string => h.config.models[0] ?? ''
beforeAll(async () => {
  h = await startHarness()
  outside = await mkdtemp(join(tmpdir(), 'darkroom-outside-'))
})
afterAll(async () => {
  await h.stop()
  await rm(outside, { recursive: true, force: true })
})

const of = (r: number, g: number, b: number, width = 400, height = 200) =>
  sharp({ create: { width, height, channels: 3, background: { r, g, b } } })
const ask = (model: string, headers: Record<string, string> = {}): Promise<Answer> =>
  h.client.request('GET', `/v1/models/${encodeURIComponent(model)}/picture`, { headers })
const colourOf = async ({ bytes }: Answer): Promise<number[]> => {
  const { data, info } = await sharp(bytes).removeAlpha().raw().toBuffer({ resolveWithObject: true })
  expect(Math.max(info.width, info.height)).toBeLessThanOrEqual(256)
  return [...data.subarray(0, 3)].map((value) => Math.round(value / 50) * 50)
}
/** A model that is one file, known to the catalogue. */
async function model(name: string): Promise<string> {
  const path = join(folder(), 'loras', `${name}.safetensors`)
  await mkdir(join(folder(), 'loras'), { recursive: true })
  await writeFile(path, safetensors(name))
  await h.client.post('/v1/models/rescan')
  await eventually(`${name} is listed`, async () => (await h.client.get(`/v1/models/${encodeURIComponent(name)}`)).status === 200)
  return path.replace(/\.safetensors$/, '')
}

describe('the picture beside a model', () => {
  it('is shown as a thumbnail, under each of its names, in their order, and is another one when it has changed', async () => {
    const stem = await model('many.names')
    expect((await ask('many.names')).json).toMatchObject({
      status: 404,
      code: 'model.no_picture',
      remedy: expect.stringMatching(/\.preview\.png/),
    })
    await writeFile(`${stem}.preview.webp`, await of(0, 0, 250).webp().toBuffer())
    const webp = await ask('many.names')
    expect({ status: webp.status, type: webp.headers['content-type'], csp: webp.headers['content-security-policy'] }).toEqual({
      status: 200,
      type: 'image/webp',
      csp: "default-src 'none'; sandbox",
    })
    expect(await colourOf(webp)).toEqual([0, 0, 250])
    // What it is the bytes say, not the name.
    await writeFile(`${stem}.png`, await of(250, 0, 0).jpeg().toBuffer())
    const jpeg = await ask('many.names')
    expect(await colourOf(jpeg)).toEqual([250, 0, 0])
    expect((await ask('many.names', { 'If-None-Match': String(jpeg.headers['etag']) })).status).toBe(304)
    await writeFile(`${stem}.png`, await of(0, 250, 0, 300, 300).png().toBuffer())
    const changed = await ask('many.names', { 'If-None-Match': String(jpeg.headers['etag']) })
    expect({ status: changed.status, colour: await colourOf(changed) }).toEqual({ status: 200, colour: [0, 250, 0] })
  })

  it('lies beside a folder too', async () => {
    await writeFile(join(folder(), 'darkroom-tiny.preview.png'), await of(250, 250, 0).png().toBuffer())
    expect(await colourOf(await ask('darkroom-tiny'))).toEqual([250, 250, 0])
    expect((await h.client.get('/v1/models/darkroom-tiny/picture?kind=lora')).json).toMatchObject({ status: 404, code: 'api.not_found' })
    expect((await h.client.get('/v1/models/darkroom-tiny/picture?kind=cat')).json).toMatchObject({ status: 422, field: 'kind' })
  })

  it('is refused in words where it is no picture, and nothing of it is served', async () => {
    const stem = await model('hostile')
    const good = await of(1, 2, 3).png().toBuffer()
    const animated = Buffer.concat([
      good.subarray(0, 33),
      Buffer.from('\0\0\0\x08acTL\0\0\0\x02\0\0\0\0\0\0\0\0', 'latin1'),
      good.subarray(33),
    ])
    const bomb = Buffer.from(good)
    bomb.writeUInt32BE(60_000, 16)
    bomb.writeUInt32BE(60_000, 20)
    for (const [name, file, status, code] of [
      ['an SVG', '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', 415, 'artifact.format'],
      ['a page', '<!doctype html><script>alert(1)</script>', 415, 'artifact.format'],
      ['a GIF', 'GIF89a', 415, 'artifact.format'],
      ['weights', safetensors('x'), 415, 'artifact.format'],
      ['nothing', '', 415, 'artifact.format'],
      ['frames', animated, 422, 'artifact.animated'],
      ['half a file', good.subarray(0, good.length / 2), 422, 'artifact.broken'],
      ['60,000 by 60,000 pixels', bomb, 413, 'artifact.too_many_pixels'],
    ] as const) {
      await writeFile(`${stem}.png`, file)
      const answer = await ask('hostile')
      expect({ status: answer.status, code: answer.json.code, remedy: typeof answer.json.remedy }, name).toEqual({
        status,
        code,
        remedy: 'string',
      })
      expect(answer.headers['content-type'], name).toMatch(/^application\/problem\+json/)
    }
    await truncate(`${stem}.png`, pictureLimits.bytes + 1)
    expect((await ask('hostile')).json).toMatchObject({ status: 413, code: 'model.picture_too_large' })
  })

  it('is nothing outside the model folders, no folder and no pipe', async () => {
    const stem = await model('leading')
    await writeFile(join(outside, 'secret.png'), await of(9, 9, 9).png().toBuffer())
    await symlink(join(outside, 'secret.png'), `${stem}.png`)
    await symlink('/etc/passwd', `${stem}.preview.png`)
    await mkdir(`${stem}.jpg`)
    await promisify(execFile)('mkfifo', [`${stem}.preview.jpg`])
    await symlink(`${stem}.jpeg`, `${stem}.jpeg`)
    expect((await ask('leading')).json).toMatchObject({ status: 404, code: 'model.no_picture' })
    // A link that stays inside is as good as the file.
    await writeFile(join(folder(), 'loras', 'elsewhere.bmp'), await of(0, 250, 250).png().toBuffer())
    await symlink(join(folder(), 'loras', 'elsewhere.bmp'), `${stem}.webp`)
    expect(await colourOf(await ask('leading'))).toEqual([0, 250, 250])
    for (const name of ['../../etc/passwd', '..', 'loras/../../x', '%2e%2e', '\0'])
      expect([400, 404, 422], name).toContain((await ask(name)).status)
  })
})

describe('the newest picture of a model', () => {
  const session = (id: string, adapter: string, sha256: string, keyId: string | null): Session =>
    ({
      input: { model: id, adapters: [{ model: { id: adapter, bodyHash: 'x' }, weight: 1 }] } satisfies Partial<z.infer<typeof PinnedInput>>,
      output: { images: [{ sha256 }] },
      keyId,
    }) as unknown as Session

  it('is that of the caller, of the model that drew it or of an adapter of it', async () => {
    const all = [session('a', 'l', 'third', 'other'), session('a', 'a', 'second', 'own'), session('b', 'l', 'first', 'own')]
    const newest = new Newest({
      list: async ({ keyId }) => ({ sessions: all.filter((each) => keyId === null || each.keyId === keyId), next: null }),
    })
    const found = async (keyId: string | null) =>
      Promise.all([
        newest.of('a', 'checkpoint', keyId),
        newest.of('l', 'lora', keyId),
        newest.of('a', 'lora', keyId),
        newest.of('l', 'checkpoint', keyId),
      ])
    expect(await found(null)).toEqual(['third', 'third', 'second', undefined])
    expect(await found('own')).toEqual(['second', 'first', 'second', undefined])
    expect(await found('nobody')).toEqual([undefined, undefined, undefined, undefined])
  })
})

/** A key closes the farm, so this comes last. */
describe('with API keys', () => {
  it('is for keys that may read', async () => {
    expect((await (await h.withKey('read')).get('/v1/models/darkroom-tiny/picture')).status).toBe(200)
    expect((await (await h.withKey('submit')).get('/v1/models/darkroom-tiny/picture')).status).toBe(403)
    expect((await ask('darkroom-tiny')).status).toBe(401)
  })
})
