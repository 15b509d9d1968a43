/** How fast a worker says that it draws, and what it says of each family. */
import { describe, expect, it } from 'vitest'
import { capabilitiesOf, Speeds } from '../../../src/workers/device/speeds.ts'

const step = (width: number, stats: object = { seconds: 3, loadS: 1, calls: 8 }, guidance = 5) => ({
  model: 'm',
  family: 'sd1',
  input: { width, height: 64, guidance },
  stats,
})

describe('speeds', () => {
  it('are calls a second without the load, the last of each shape, the newest first', () => {
    const speeds = new Speeds()
    speeds.note(step(64))
    speeds.note(step(128))
    speeds.note(step(64, { seconds: 2, loadS: 0, calls: 8, peakBytes: 5 }))
    speeds.note(step(64, undefined, 1))
    expect(speeds.list.map(({ width, rows, callsPerS, peakBytes }) => [width, rows, callsPerS, peakBytes])).toEqual([
      [64, 1, 4, null],
      [64, 2, 4, 5],
      [128, 2, 4, null],
    ])
  })

  it('are of sixteen shapes at most, and pass over what did no call or is no picture', () => {
    const speeds = new Speeds()
    for (let i = 1; i <= 40; i++) speeds.note(step(8 * i))
    speeds.note(step(8, { seconds: 1, calls: 0 }))
    speeds.note(step(8, {}))
    speeds.note({ ...step(8), input: { prompt: 'x' } })
    expect(speeds.list.map(({ width }) => width)).toEqual(Array.from({ length: 16 }, (_, i) => 8 * (40 - i)))
  })
})

describe('a family', () => {
  const gpu = { hardware: { kind: 'cuda' }, settings: { dtype: 'float16', transformer: 'bfloat16' } } as Parameters<
    typeof capabilitiesOf
  >[1]
  it('with a UNet takes all samplers and schedules, by graphs on a GPU', () => {
    const [sdxl] = capabilitiesOf('sdxl', gpu)
    expect(sdxl).toMatchObject({ dtype: 'float16', graphs: true })
    expect([sdxl?.samplers.length, sdxl?.schedules.length]).toEqual([25, 8])
    expect(capabilitiesOf('sdxl', { ...gpu, hardware: { ...gpu.hardware, kind: 'cpu' } })[0]?.graphs).toBe(false)
  })

  it('with flow matching takes three and its own times, in a precision of its own', () => {
    const flow = { dtype: 'bfloat16', graphs: false, samplers: ['Euler', 'Heun', 'LCM'], schedules: ['Automatic'] }
    for (const family of ['flux1', 'flux2', 'qwen-image', 'sd3', 'z-image'])
      expect(capabilitiesOf(family, gpu)).toEqual([{ family, ...flow }])
  })

  it('that nobody draws has none', () => {
    expect(capabilitiesOf('chroma', gpu)).toEqual([])
  })
})
