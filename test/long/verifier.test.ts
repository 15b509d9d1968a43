/**
 * Random programs under random faults, for two minutes; `npm run chaos` is the same for as long as one likes, and waits
 * longer for what BullMQ has to clear up itself. `CHAOS_SEED` chooses other programs and another plan of faults.
 */
import { expect, it } from 'vitest'
import { verify } from './verifier/run.ts'

const seed = Number(process.env['CHAOS_SEED'] ?? 20_260)
const minutes = 2

it(
  `random programs with seed ${seed} on 3 workers, with workers, children, APIs, Redis and its line broken at random: each comes to what was worked out beforehand`,
  { timeout: 480_000 },
  async () => {
    const { verdict, voids, isGood } = await verify({ seed, minutes, say: (line) => void process.stdout.write(`${line}\n`) })
    expect(verdict.violations).toEqual([])
    expect(voids).toEqual([])
    expect(isGood).toBe(true)
  },
)
