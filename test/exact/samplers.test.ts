/**
 * `npm run test:exact`: every sampler in a farm, killed and drained in the middle. Every pair of a sampler and a
 * schedule of every family is resumed from a checkpoint by `python/tests/every_pair.py`, before this.
 */
import { afterAll, beforeAll, describe, it } from 'vitest'
import { samplers } from '../../src/domains/samplers.ts'
import { survivesDrain, survivesKill } from '../support/exactness.ts'
import { startFarm, type Farm } from '../support/farm.ts'

const slow = 300_000

let farm: Farm
beforeAll(async () => {
  farm = await startFarm({ workers: 2, real: true })
}, slow)
afterAll(async () => farm[Symbol.asyncDispose](), 60_000)

describe.each(samplers)('%s', (sampler) => {
  const request = { prompt: 'a large green star on black', seed: 21, steps: 24, sampler }
  it('killed in the middle, the picture is the same', { timeout: slow }, () => survivesKill(farm, request))
  it('drained in the middle, the picture is the same', { timeout: slow }, () => survivesDrain(farm, request))
})
