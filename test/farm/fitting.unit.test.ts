/** Which way of drawing fits a card: SDXL's weights as they compute, and 1024². */
import { expect, it } from 'vitest'
import { waysOf, type Fit, type Load } from '../../src/farm/fitting.ts'

const gb = 1e9
const fitOf = (load: Load, total: number, isCpu: boolean): Fit | undefined => waysOf(load, isCpu).find(({ bytes }) => bytes <= total)
const xl: Load = {
  parts: [
    { kind: 'diffusion-model', bytes: 5.13 * gb },
    { kind: 'text-encoder', bytes: 0.49 * gb },
    { kind: 'text-encoder', bytes: 2.78 * gb },
    { kind: 'vae', bytes: 0.33 * gb },
  ],
  working: { denoise: 0.9 * gb, decode: 9.7 * gb, tile: 2.4 * gb },
}

it.each([
  [24, 'none', false],
  [18, 'component', false],
  [10.1, 'component', false],
  [8, 'component', true],
  [6, 'blocks', true],
])('on %d GB', (size, offload, inTiles) => {
  expect(fitOf(xl, size * gb, false)).toMatchObject({ offload, inTiles })
})

it('nothing fits into less than a tile and the network’s blocks take, nor on a CPU into less than its network', () => {
  expect(fitOf(xl, 2 * gb, false)).toBeUndefined()
  expect(fitOf(xl, 6 * gb, true)).toBeUndefined()
  expect(fitOf(xl, 6.1 * gb, true)).toMatchObject({ offload: 'component', inTiles: true })
})

it('a picture that is smaller than a tile takes what it takes whole', () => {
  const small = { ...xl, working: { ...xl.working, decode: 0.1 * gb } }
  expect(fitOf(small, 6.1 * gb, false)).toMatchObject({ offload: 'component', inTiles: false })
})
