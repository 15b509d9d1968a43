/**
 * `postprocessing.checkShare`, `postprocessing.saveShare`: what is done with a picture of darkroom-tiny behind its last
 * denoise call, beside the time that its session has the device. A policy's check, as a part of the device time of the
 * same session without one; and how much longer the device stands still where a picture is saved, with its thumbnail,
 * than between two steps that save nothing.
 */
import { productTimes } from '../src/engine/times.ts'
import { enforce, untilListed } from '../test/support/classifiers.ts'
import { startFarm, type Farm } from '../test/support/farm.ts'
import { figure, type Benchmark } from './figure.ts'
import { median, range, rounded } from './statistics.ts'

const rounds = 12
const classifier = 'darkroom-tiny/safety'
const category = 'custom/plumbing-test-sensitive-not-nudity'
/** Some seconds of denoising on two cores. */
const request = { prompt: 'a large green circle on white', steps: 40, width: 256, height: 256, model: 'darkroom-tiny' }

interface Step {
  name: string
  seconds: number
  from: number
  to: number
}

/** The steps on the device, in their order, with their seconds as the child measured them. */
async function onDevice(farm: Farm, id: string): Promise<Step[]> {
  const { steps } = await farm.receipt(id)
  const attempts = steps
    .filter(({ step }) => step.startsWith('inference.') || step === 'postprocessing.check')
    .flatMap(({ step, attempts: all }) => all.map((attempt) => ({ step, ...attempt })))
  if (attempts.some(({ end }) => end !== 'completed')) throw new Error(`void: an attempt of ${id} did not complete`)
  return attempts
    .map(({ step, stats, startedAt, endedAt }) => ({
      name: step,
      seconds: Number(stats?.['seconds']),
      from: Date.parse(startedAt),
      to: Date.parse(endedAt ?? ''),
    }))
    .toSorted((a, b) => a.from - b.from)
}

const secondsOf = (steps: readonly Step[]): number => steps.reduce((sum, { seconds }) => sum + seconds, 0)

/** How long the device stood still between each two neighbours for which `is` holds, ms. */
const gapsOf = (steps: readonly Step[], is: (before: string, after: string) => boolean): number[] =>
  steps.slice(1).flatMap((step, i) => {
    const before = steps[i]
    return before && is(before.name, step.name) ? [step.from - before.to] : []
  })

export const judging: Benchmark = {
  figures: ['postprocessing.checkShare', 'postprocessing.saveShare'],
  isLong: true,
  async measure(say) {
    await using farm = await startFarm({ times: productTimes, real: true, settings: { DARKROOM_CHECKPOINT_CALLS: '1000' } })
    await untilListed(farm, [classifier])
    await enforce(farm, 'judging', { classifiers: [classifier], categories: { [category]: { flag: 0.9 } } })
    const drawn = async (seed: number, more: object = {}): Promise<Step[]> => {
      const id = await farm.submit({ ...request, seed, ...more })
      await farm.pictures(id, 300_000)
      return onDevice(farm, id)
    }
    const safety = { policy: 'judging' }
    // Model and classifier are loaded, and hashed, by then.
    await drawn(1, { safety })

    const shares: number[] = []
    const checks: number[] = []
    for (let round = 0; round < rounds; round++) {
      const seed = 100 + round
      const pair = round % 2 === 0 ? [await drawn(seed), await drawn(seed, { safety })] : [await drawn(seed, { safety }), await drawn(seed)]
      const [plain = [], judged = []] = round % 2 === 0 ? pair : pair.toReversed()
      const check = judged.filter(({ name }) => name === 'postprocessing.check')
      if (check.length !== 1) throw new Error(`void: ${check.length} checks of one picture`)
      checks.push(1000 * secondsOf(check))
      shares.push(secondsOf(check) / secondsOf(plain))
    }
    say(`${rounds} checks: ${range(checks)} ms, of a session’s device time in turn ${rounded(median(shares))}`)

    const steps = await drawn(500, { count: rounds, steps: 10 })
    const saving = gapsOf(steps, (before, after) => before === 'inference.decode' && after === 'inference.denoise')
    const plain = gapsOf(steps, (before, after) => before === 'inference.denoise' && after === 'inference.decode')
    const perPicture = (1000 * secondsOf(steps)) / rounds
    say(`between two steps ${range(plain)} ms, where a picture is saved ${range(saving)} ms, of ${rounded(perPicture)} ms a picture`)
    return [
      figure('postprocessing.checkShare', median(shares), '', { atMost: 0.03 }),
      figure('postprocessing.saveShare', (median(saving) - median(plain)) / perPicture, '', { atMost: 0.01 }),
    ]
  },
}
