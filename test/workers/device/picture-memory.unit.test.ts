import { describe, expect, it } from 'vitest'
import { PictureMemory, shapeOf } from '../../../src/workers/device/picture-memory.ts'

const shape = (width: number, height = width) => shapeOf('inference.decode', { width, height, model: { id: 'm' } }) ?? expect.fail()

describe('what a picture takes of a device', () => {
  it('is guessed by its pixels, but never more than there is room for', () => {
    const memory = new PictureMemory()
    expect(memory.bytesOf(shape(512), 2 ** 40)).toBe(4096 * 512 * 512)
    expect(memory.bytesOf(shape(512), 1000)).toBe(1000)
    expect(memory.bytesOf({ ...shape(512), step: 'inference.encode' }, 2 ** 40)).toBe(0)
  })

  it('is what was measured, the highest of it, whatever room there is', () => {
    const memory = new PictureMemory()
    memory.measured(shape(512), 700)
    memory.measured(shape(512), 500)
    expect(memory.bytesOf(shape(512), 100)).toBe(700)
    expect(memory.bytesOf({ ...shape(512), model: 'other' }, 2 ** 40)).toBe(4096 * 512 * 512)
  })

  it('follows the nearest size that was measured', () => {
    const memory = new PictureMemory()
    memory.measured(shape(64), 1000)
    memory.measured(shape(512), 640_000)
    expect(memory.bytesOf(shape(512, 1024), 2 ** 40)).toBe(1_280_000)
    expect(memory.bytesOf(shape(64, 128), 2 ** 40)).toBe(2000)
  })

  it('is told of the shapes that were drawn last, the highest of each', () => {
    const memory = new PictureMemory()
    for (let side = 1; side <= 40; side++) memory.measured(shape(side * 8), side)
    memory.measured(shape(80), 500)
    memory.measured(shape(80), 400)
    expect(memory.told).toHaveLength(32)
    expect(memory.told.at(-1)).toEqual({ step: 'inference.decode', model: 'm', pixels: 6400, profile: 'auto', bytes: 500 })
    expect(memory.told[0]).toMatchObject({ bytes: 9 })
  })

  it('is not asked of a step without a picture', () => {
    expect(shapeOf('model.load', { model: { id: 'm' } })).toBeUndefined()
  })
})
