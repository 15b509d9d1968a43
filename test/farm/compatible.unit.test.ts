/** Whether a model draws on a device, from what a worker has published and a header has said. */
import { describe, expect, it } from 'vitest'
import { compatibleWith, type Compatible, type Picture } from '../../src/farm/compatible.ts'
import type { Run } from '../../src/farm/runs.ts'
import type { Drawing } from '../../src/models/drawing.ts'
import { blank, type Component } from '../../src/models/verdict.ts'

type Worker = Parameters<typeof compatibleWith>[1]

const gib = 2 ** 30
const part = (name: string, kind: Component['kind'], parameters: number): Component => ({
  name,
  kind,
  at: name,
  parameters,
  bytes: 0,
  files: {},
})
const recommended = { width: 512, height: 512, steps: 20, guidance: 7, sampler: 'DDIM' }
const drawing: Drawing = { family: 'sd1', scale: 8, recommended, vocabulary: {} }
const verdict = {
  ...blank('diffusers'),
  kind: 'checkpoint' as const,
  components: [
    part('unet', 'diffusion-model', 860_000_000),
    part('text_encoder', 'text-encoder', 123_000_000),
    part('vae', 'vae', 84_000_000),
  ],
}
const model = { id: 'sd', verdict, drawing, bytes: 4_265_000_000 }
const limits = { cells: 262_144, cellSteps: 262_144 * 200 }

function worker(total: number | null, more: { dtype?: string; families?: string[]; limits?: typeof limits } = {}): Worker {
  const { dtype = 'float16', families = ['sd1'] } = more
  return {
    id: 'w',
    device: { id: 'cuda-0', kind: 'cuda', name: 'A card', index: 0, totalBytes: total },
    exactnessKey: 'class',
    settings: { dtype, offload: 'none' },
    shelf: 's',
    report: { figures: { total, budget: null }, capabilities: { families, limits: more.limits ?? limits } },
  } as unknown as Worker
}

const picture: Picture = { width: 512, height: 512, steps: 20, guidance: 7 }
const on = (device: Worker, more: { has?: boolean; picture?: Picture; runs?: Run[] } = {}): Compatible =>
  compatibleWith(model, device, { has: true, picture, runs: [], ...more })

describe('a model on a device', () => {
  it('fits, in the precision of the device, with its weights by part', () => {
    expect(on(worker(24 * gib))).toMatchObject({
      fits: true,
      why: null,
      precision: 'float16',
      offload: 'none',
      parts: [
        { name: 'unet', bytes: 1_720_000_000 },
        { name: 'text_encoder', bytes: 492_000_000 },
        { name: 'vae', bytes: 336_000_000 },
      ],
      seconds: null,
    })
  })

  it.each([
    [24, 'none'],
    [4, 'component'],
    [2, null],
  ])('on a card of %d GiB is drawn with offload %s', (size, offload) => {
    const found = on(worker(size * gib))
    expect([found.fits, found.offload]).toEqual([offload !== null, offload])
    if (offload !== null) expect(found.peakBytes.value).toBeLessThanOrEqual(size * gib)
  })

  it('takes about what such a picture took: 5.2 GiB of a card, its context included', () => {
    const { value, basis } = on(worker(24 * gib)).peakBytes
    expect(value).toBeGreaterThan(4.6 * gib)
    expect(value).toBeLessThan(5.8 * gib)
    expect(basis).toBe('estimate')
  })

  it('takes what was measured there of such pictures of the model, and says so', () => {
    const peak = (step: string, bytes: number, more: object = {}) => ({
      step,
      model: 'sd',
      pixels: 512 * 512,
      profile: 'auto' as const,
      bytes,
      ...more,
    })
    const told = (pictures: ReturnType<typeof peak>[], kind = 'cuda') => {
      const device = worker(8 * gib)
      return on({ ...device, device: { ...device.device, kind }, pictures })
    }
    const both = [peak('inference.denoise', 3 * gib), peak('inference.decode', 4 * gib)]
    const weights = 2_548_000_000
    expect(told(both)).toMatchObject({ fits: true, offload: 'none', peakBytes: { value: 2 ** 29 + weights + 4 * gib, basis: 'measured' } })
    for (const [pictures, kind] of [
      [both.slice(1), 'cuda'],
      [both.map((each) => ({ ...each, model: 'other' })), 'cuda'],
      [both.map((each) => ({ ...each, pixels: 64 })), 'cuda'],
      [both, 'cpu'],
    ] as const)
      expect(told(pictures, kind)).toMatchObject({ fits: true, peakBytes: { basis: 'estimate' } })
  })

  it('takes more for a larger picture, and more in fp32', () => {
    const peak = (device: Worker, size: number): number =>
      on(device, { picture: { ...picture, width: size, height: size } }).peakBytes.value
    expect(peak(worker(null), 1024)).toBeGreaterThan(peak(worker(null), 512) + 6 * gib)
    expect(peak(worker(null, { dtype: 'float32' }), 64) - peak(worker(null), 64)).toBeGreaterThanOrEqual(1_720_000_000)
  })

  it.each<[string, Compatible, RegExp]>([
    [
      'more than its blocks and one tile take',
      on(worker(2 * gib)),
      /would take about \d+ bytes, its weights are 2548000000 of them, or \d+ where no more of it is there than computes; the device has 2147483648/,
    ],
    ['another family', on(worker(24 * gib, { families: ['sdxl'] })), /draws with sdxl, not with sd1/],
    ['a host without it', on(worker(24 * gib), { has: false }), /host do not have this model/],
    [
      'more pixels than it draws',
      on(worker(24 * gib, { limits: { cells: 1024, cellSteps: 1e9 } })),
      /512 × 512 is larger than the 65536 pixels/,
    ],
    ['more steps than it draws', on(worker(24 * gib, { limits: { cells: 4096, cellSteps: 4096 } })), /20 steps of such a picture/],
    ['what does not draw', compatibleWith({ ...model, drawing: null }, worker(null), { has: true, picture, runs: [] }), /does not draw/],
  ])('does not fit for %s, in words', (_, found, why) => {
    expect(found).toMatchObject({ fits: false, why: expect.stringMatching(why) as string })
  })

  it('of which nobody knows how much memory it has is not refused', () => expect(on(worker(null)).fits).toBe(true))
})

describe('how long it takes', () => {
  const run: Run = { exactnessKey: 'class', width: 512, height: 512, rows: 2, callS: 0.05 }
  const seconds = (runs: Run[], more: Partial<Picture> = {}): Compatible['seconds'] =>
    on(worker(null), { runs, picture: { ...picture, ...more } }).seconds

  it('is measured where that shape was drawn on such hardware', () => {
    expect(seconds([run, { ...run, width: 64, height: 64, callS: 9 }])).toEqual({ value: 1, basis: 'measured' })
    expect(seconds([run], { steps: 40 })).toEqual({ value: 2, basis: 'measured' })
  })

  it('is estimated by pixels and rows from the nearest other one', () => {
    expect(seconds([run, { ...run, width: 64, height: 64, callS: 9 }], { width: 1024, height: 1024 })).toEqual({
      value: 4,
      basis: 'estimate',
    })
    expect(seconds([run], { guidance: 1 })).toEqual({ value: 0.5, basis: 'estimate' })
  })

  it('is not known where nothing was drawn, and other hardware says nothing', () => {
    expect(seconds([])).toBeNull()
    expect(seconds([{ ...run, exactnessKey: 'another' }])).toBeNull()
  })
})
