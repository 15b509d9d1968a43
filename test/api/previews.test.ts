/** `GET /v1/sessions/{id}/preview`: which picture it shows, to whom, and what it says where there is none. */
import { randomBytes } from 'node:crypto'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { jpegOf, maxPreviewBytes } from '../../src/artifacts/preview.ts'
import type { Attempt } from '../../src/engine/attempt.ts'
import { keys } from '../../src/keys.ts'
import { safetensors } from '../support/headers.ts'
import { sketchOf, startHarness, type Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

async function begun(client = h.client): Promise<{ id: string; attempt: Attempt }> {
  const id = (await client.post('/v1/sessions', sketchOf('a'))).json.id as string
  return { id, attempt: await h.take(id) }
}
const previewOf = (id: string, more = '', headers = {}) => h.client.request('GET', `/v1/sessions/${id}/preview${more}`, { headers })
const grey = (width: number, height: number, value: number) => ({ rgb: Buffer.alloc(width * height * 3, value), width, height })

/** A checkpoint as the child writes it, of which this reads the draft alone. */
async function checkpointed(attempt: Attempt, call: number, value?: number): Promise<string> {
  const draft = value === undefined ? {} : { draft: ['U8', [3, 5, 3]] as const }
  const { head, body } = safetensors({ rng: ['U8', [call]], ...draft })
  const bytes = Buffer.concat([head, Buffer.alloc(body, value)])
  const sha256 = await h.artifacts.put(bytes, 'scratch')
  await h.port.checkpoint(attempt, { sha256, bytes: bytes.length, call })
  return sha256
}

describe('a preview', () => {
  it('is the latest that was shown, under a tag of its own, and the progress says of which call', async () => {
    const { id, attempt } = await begun()
    expect(await previewOf(id)).toMatchObject({
      status: 404,
      json: { code: 'session.no_preview', detail: expect.stringContaining(id) as string },
    })
    const [first, second] = await Promise.all([jpegOf(grey(8, 8, 10)), jpegOf(grey(8, 8, 200))])
    await h.port.preview(attempt, 4, first)
    await h.port.preview(attempt, 9, second)
    await h.port.progress(attempt, { stage: 'run', call: 9, calls: 20, preview: 9 })
    const shown = await previewOf(id)
    expect([shown.status, shown.headers['content-type'], shown.headers['cache-control']]).toEqual([200, 'image/jpeg', 'private, no-cache'])
    expect(shown.bytes).toEqual(second)
    const tag = String(shown.headers['etag'])
    expect((await previewOf(id, '?n=7', { 'If-None-Match': tag })).status).toBe(304)
    expect((await previewOf(id, '', { 'If-None-Match': '"another"' })).status).toBe(200)
    expect((await previewOf(id, '?n=x')).json).toMatchObject({ code: 'api.invalid', field: 'n' })
    expect((await h.client.get(`/v1/sessions/${id}`)).json.progress).toMatchObject({ call: 9, preview: 9 })
    const history = await h.engine.history(id, 0, 100)
    expect(JSON.stringify(history)).not.toContain('preview')
    await h.engine.control(id, 'cancel')
  })

  it('gives way to the draft of a later checkpoint, and comes back with a later call', async () => {
    const { id, attempt } = await begun()
    await h.port.preview(attempt, 4, await jpegOf(grey(8, 8, 10)))
    await checkpointed(attempt, 6, 200)
    const draft = await previewOf(id)
    expect(await sharp(draft.bytes).metadata()).toMatchObject({ format: 'jpeg', width: 5, height: 3 })
    expect([...(await sharp(draft.bytes).raw().toBuffer())].every((value) => Math.abs(value - 200) < 3)).toBe(true)
    const later = await jpegOf(grey(8, 8, 30))
    await h.port.preview(attempt, 7, later)
    expect((await previewOf(id)).bytes).toEqual(later)
    // An attempt that does not hold the step any more shows nothing.
    expect(await h.port.preview({ ...attempt, id: 'another' }, 19, await jpegOf(grey(8, 8, 50)))).toBe(false)
    expect((await previewOf(id)).bytes).toEqual(later)
    await h.engine.control(id, 'cancel')
  })

  it('is the draft before where the newest checkpoint is gone, and none where no checkpoint holds one', async () => {
    const { id, attempt } = await begun()
    await checkpointed(attempt, 5)
    expect((await previewOf(id)).json).toMatchObject({ code: 'session.no_preview' })
    await checkpointed(attempt, 6, 90)
    const draft = await previewOf(id)
    expect(draft.status).toBe(200)
    await h.port.checkpoint(attempt, { sha256: '0'.repeat(64), bytes: 1, call: 7 })
    expect((await previewOf(id)).bytes).toEqual(draft.bytes)
    await h.engine.control(id, 'cancel')
  })

  it('ends with its session', async () => {
    const { id, attempt } = await begun()
    await h.port.preview(attempt, 4, await jpegOf(grey(8, 8, 10)))
    expect((await previewOf(id)).status).toBe(200)
    await h.engine.control(id, 'cancel')
    expect(await previewOf(id)).toMatchObject({
      status: 404,
      json: { code: 'session.no_preview', detail: expect.stringContaining('cancelled') as string },
    })
    expect(await h.redis.exists(keys.preview(id))).toBe(0)
  })

  it('is seen by who sees its session', async () => {
    const owner = await h.withKey('submit', 'read', 'control')
    const other = await h.withKey('submit', 'read', 'control')
    const operator = await h.withKey('read', 'operate')
    const blind = await h.withKey('submit')
    const { id, attempt } = await begun(owner)
    await h.port.preview(attempt, 4, await jpegOf(grey(8, 8, 10)))
    const path = `/v1/sessions/${id}/preview`
    const answers = await Promise.all([owner, other, operator, blind, h.client].map((client) => client.get(path)))
    expect(answers.map(({ status }) => status)).toEqual([200, 404, 200, 403, 401])
    expect(answers[1]?.json).toMatchObject({ code: 'session.unknown' })
    await owner.post(`/v1/sessions/${id}/cancel`)
  })
})

it('noise of the largest picture is no larger than a preview may be', async () => {
  const noise = await jpegOf({ rgb: randomBytes(512 * 512 * 3), width: 512, height: 512 })
  expect(noise.length).toBeLessThanOrEqual(maxPreviewBytes)
  expect(await sharp(noise).metadata()).toMatchObject({ width: 256, height: 256 })
})
