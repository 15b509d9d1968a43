/** What is counted of steps, and what a report makes of it: of bounded size, and each advice names its figure. */
import { describe, expect, it } from 'vitest'
import { figuresOf, type Figure } from '../../../src/domains/postprocessing/analytics/counts.ts'
import { Report, reportOf, type Day } from '../../../src/domains/postprocessing/analytics/report.ts'

const picture = { sha256: 'a'.repeat(64), width: 100, height: 50 }
const measures = (noise: number, dark = 0) => ({ sharpness: 10, noise, clipping: { dark, light: 0 } })
const policies = [{ name: 'house' }, { name: 'strict' }]
const verdict = (action: string, more: object = {}) => ({ action, policy: { name: 'house', version: 2 }, fired: [], ...more })

/** As a day in Redis puts them together. */
function dayOf(day: string, figures: readonly Figure[], dropped = 0): Day {
  const all = new Map<string, number>()
  for (const { name, how, number } of figures) {
    const key = JSON.stringify(name)
    all.set(key, how === 'add' ? (all.get(key) ?? 0) + number : Math.max(all.get(key) ?? 0, number))
  }
  return { day, figures: [...all].map(([name, number]) => [JSON.parse(name) as string[], number] as const), dropped }
}
const many = (count: number, figures: readonly Figure[]): Figure[] => Array.from({ length: count }, () => figures).flat()
const drawn = (output: object): Figure[] => figuresOf('postprocessing.check', { picture, drawn: true, policies }, output, { seconds: 0.1 })
const advice = (days: Day[]) => reportOf(days).recommendations.map(({ figure, value }) => [figure, value])

describe('of steps', () => {
  it('are counted pictures, seconds, pixels and memory, by what sets them apart', () => {
    const upscaled = { width: 200, height: 100 }
    const figures = [
      ...figuresOf('postprocessing.upscale', { upscaler: { id: 'x2' } }, upscaled, { seconds: 2, peakBytes: 900 }),
      ...figuresOf('postprocessing.upscale', { upscaler: { id: 'x2' } }, upscaled, { seconds: 3, peakBytes: 700 }),
      ...figuresOf('postprocessing.upscale', { upscaler: 'lanczos' }, upscaled, { seconds: 0.5 }),
      ...figuresOf('postprocessing.save', picture, {}, { seconds: 0.1 }),
      ...figuresOf('postprocessing.convert', { picture, convert: { format: 'avif' } }, { images: [{ bytes: 77 }] }, { seconds: 1 }),
      ...figuresOf('postprocessing.score', { pictures: [picture, picture] }, {}, { seconds: 1 }),
      ...figuresOf('inference.denoise', {}, {}, { seconds: 9 }),
    ]
    const { operations: steps } = reportOf([dayOf('2026-11-28', figures), dayOf('2026-11-29', figures.slice(0, 4))])
    const of = (step: string, by: string | null) => steps.find((each) => each.step === step && each.by === by)
    expect(steps.length).toBe(5)
    expect(of('upscale', 'x2')).toMatchObject({ count: 3, seconds: 7, pixels: 60_000, pixelsPerS: 60_000 / 7, peakBytes: 900 })
    expect(of('upscale', 'lanczos')).toMatchObject({ count: 1, peakBytes: null })
    expect(of('save', null)).toMatchObject({ pixels: 5000 })
    expect(of('convert', 'avif')).toMatchObject({ bytes: 77 })
    expect(of('score', null)).toMatchObject({ count: 2, pixels: 10_000 })
  })

  it('of quality are told the means before and after', () => {
    const step = (noise: number) =>
      figuresOf('postprocessing.enhance', { picture }, { before: measures(noise), after: measures(1) }, { seconds: 1 })
    const [enhance] = reportOf([dayOf('2026-11-29', [...step(2), ...step(4)])]).operations
    expect(enhance).toMatchObject({ before: { noise: 3, sharpness: 10 }, after: { noise: 1 } })
  })
})

describe('verdicts', () => {
  it('are counted by policy, version, rule and day, of what was drawn alone', () => {
    const fired = [{ rule: 'category hate', action: 'flag', policy: { name: 'strict', version: 1 } }]
    const today = [...drawn(verdict('allow')), ...drawn(verdict('flag', { fired, policy: { name: 'strict', version: 1 } }))]
    const tried = figuresOf('postprocessing.check', { picture, policies }, verdict('block'), { seconds: 1 })
    const { policies: found } = reportOf([dayOf('2026-11-28', drawn(verdict('allow'))), dayOf('2026-11-29', [...today, ...tried])])
    expect(found).toEqual([
      {
        policy: 'house',
        version: 2,
        pictures: 2,
        actions: { allow: 2, flag: 0, blur: 0, block: 0 },
        unchecked: 0,
        rules: [],
        days: [
          { day: '2026-11-28', allow: 1, flag: 0, blur: 0, block: 0 },
          { day: '2026-11-29', allow: 1, flag: 0, blur: 0, block: 0 },
        ],
      },
      {
        policy: 'strict',
        version: 1,
        pictures: 1,
        actions: { allow: 0, flag: 1, blur: 0, block: 0 },
        unchecked: 0,
        rules: [{ rule: 'category hate', flag: 1, blur: 0, block: 0 }],
        days: [{ day: '2026-11-29', allow: 0, flag: 1, blur: 0, block: 0 }],
      },
    ])
  })
})

describe('advice', () => {
  it('is given of no policy and no step that few pictures speak of', () => {
    expect(advice([dayOf('2026-11-29', many(19, drawn(verdict('block'))))])).toEqual([])
    expect(advice([])).toEqual([])
  })

  it('follows from a figure, and names it with what it is', () => {
    const fired = [{ rule: 'category hate', action: 'block', policy: { name: 'house', version: 2 } }]
    expect(advice([dayOf('d', many(30, drawn(verdict('block', { fired }))))])).toEqual([['policies.house.2.actions.block', 30]])
    expect(advice([dayOf('d', drawn(verdict('allow', { unchecked: 'none' })))])).toEqual([['policies.house.2.unchecked', 1]])
    expect(advice([dayOf('d', many(1000, drawn(verdict('allow'))))])).toEqual([['policies.house.2.actions.allow', 1000]])
    const noisier = { before: measures(1), after: measures(2, 0.05) }
    const enhanced = figuresOf('postprocessing.enhance', { picture }, noisier, { seconds: 1 })
    expect(advice([dayOf('d', many(20, enhanced))])).toEqual([
      ['operations.enhance.after.noise', 2],
      ['operations.enhance.after.dark', expect.closeTo(0.05)],
    ])
    const converted = (format: string, seconds: number) =>
      many(20, figuresOf('postprocessing.convert', { picture, convert: { format } }, { images: [] }, { seconds }))
    expect(advice([dayOf('d', [...converted('avif', 2), ...converted('webp', 0.1), ...converted('jpeg', 0.3)])])).toEqual([
      ['operations.convert.avif.pixelsPerS', 2500],
    ])
    expect(advice([dayOf('d', [], 3)])).toEqual([['dropped', 3]])
  })

  it('comes with a report of bounded size, however much there was', () => {
    const figures = Array.from({ length: 500 }, (_, i) => [
      ...figuresOf('postprocessing.upscale', { upscaler: { id: `x${i}` } }, picture, { seconds: 1 }),
      ...drawn({ ...verdict('flag'), policy: { name: `p${i}`, version: 1 } }),
    ]).flat()
    const report = reportOf(Array.from({ length: 31 }, (_, i) => dayOf(`2026-10-${String(i + 1).padStart(2, '0')}`, figures)))
    expect(() => Report.parse(report)).not.toThrow()
    expect([report.operations.length, report.policies.length]).toEqual([100, 100])
    expect(JSON.stringify(report).length).toBeLessThan(2 ** 20)
  })
})
