/** A picture while it is drawn, as a page would show it: real weights over HTTP, over a pause and a worker's death. */
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { maxPreviewBytes } from '../../src/artifacts/preview.ts'
import { startFarm, type Farm } from '../support/farm.ts'

const slow = 240_000
// Two calls a step: some seconds of them.
const request = { prompt: 'a large red star on yellow', seed: 8, steps: 120, width: 128, height: 128, sampler: 'DPM2' }
/** Latent cells of a side. */
const cells = 32

describe('a picture under way', () => {
  let farm: Farm
  beforeAll(async () => {
    farm = await startFarm({ workers: 1, real: true })
  }, slow)
  afterAll(async () => farm[Symbol.asyncDispose](), 60_000)

  const previewOf = (id: string, headers = {}) => farm.client.request('GET', `/v1/sessions/${id}/preview`, { headers })
  const pixelsOf = (picture: Buffer): Promise<Buffer> =>
    sharp(picture).resize(cells, cells, { fit: 'fill', kernel: 'cubic' }).removeAlpha().raw().toBuffer()

  it(
    'is shown once a second at most, as a draft when it is paused and its worker dead, and its bytes are the same without',
    { timeout: slow },
    async () => {
      const id = await farm.submit(request)
      const seen = new Map<string, number>()
      const startedAt = performance.now()
      for (;;) {
        const { progress } = await farm.get(id)
        const { status, headers, bytes } = await previewOf(id)
        if (status === 200) {
          expect(headers['content-type']).toBe('image/jpeg')
          expect(bytes.length).toBeLessThanOrEqual(maxPreviewBytes)
          expect(await sharp(bytes).metadata()).toMatchObject({ format: 'jpeg', width: cells, height: cells })
          seen.set(String(headers['etag']), performance.now())
        }
        if ((progress?.call ?? 0) >= 216) break
      }
      const elapsedS = (performance.now() - startedAt) / 1000
      expect(seen.size).toBeGreaterThanOrEqual(1)
      // Of checkpoints there is one a call; they are shown where no preview is.
      await farm.control(id, 'pause')
      const { progress } = await farm.until(id, 'paused', slow)
      expect(progress?.preview).toBeGreaterThan(0)
      expect([...seen.keys()].filter((tag) => tag.includes('-')).length).toBeLessThanOrEqual(elapsedS + 1)

      const draft = await previewOf(id)
      expect(draft.status).toBe(200)
      for (const worker of farm.workersAlive()) await worker.kill()
      const after = await previewOf(id)
      expect([after.status, after.headers['etag'], after.bytes]).toEqual([200, draft.headers['etag'], draft.bytes])
      expect((await previewOf(id, { 'If-None-Match': String(draft.headers['etag']) })).status).toBe(304)

      await farm.addWorker({ real: true, env: { DARKROOM_PREVIEW_S: '0' } })
      await farm.control(id, 'resume')
      const [sha256 = ''] = await farm.pictures(id, slow)
      expect((await previewOf(id)).json).toMatchObject({ code: 'session.no_preview', status: 404 })
      const { bytes: picture } = await farm.client.get(`/v1/artifacts/${sha256}`)
      const [shown, drawn] = [await pixelsOf(draft.bytes), await pixelsOf(picture)]
      expect(correlation(shown, drawn)).toBeGreaterThan(0.9)
      // Other matrices show another yellow: that of SDXL is twice as far away (python/tests/test_previews.py).
      const distance = shown.reduce((sum, value, i) => sum + Math.abs(value - (drawn[i] ?? 0)), 0) / shown.length
      expect(distance).toBeLessThan(24)

      const hidden = await farm.submit(request)
      await farm.untilCall(hidden, 50, slow)
      expect((await previewOf(hidden)).json).toMatchObject({ code: 'session.no_preview' })
      expect(await farm.pictures(hidden, slow)).toEqual([sha256])

      // And the device says how fast that was.
      const { devices } = (await farm.client.get('/v1/devices')).json as { devices: { capabilities: { measured: object[] } }[] }
      expect(devices[0]?.capabilities.measured).toEqual([
        {
          model: 'darkroom-tiny',
          family: 'sd1',
          width: 128,
          height: 128,
          rows: 2,
          callsPerS: expect.closeTo(20, -2) as number,
          peakBytes: expect.any(Number) as number,
          measuredAt: expect.stringMatching(/^20/) as string,
        },
      ])
    },
  )
})

/** Pearson's r. */
function correlation(a: Buffer, b: Buffer): number {
  const mean = (values: Buffer): number => values.reduce((sum, value) => sum + value, 0) / values.length
  const [ma, mb] = [mean(a), mean(b)]
  let [ab, aa, bb] = [0, 0, 0]
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [(a[i] ?? 0) - ma, (b[i] ?? 0) - mb]
    ab += x * y
    aa += x * x
    bb += y * y
  }
  return ab / Math.sqrt(aa * bb)
}
