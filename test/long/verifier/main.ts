/**
 * `npm run chaos -- [--minutes N] [--seed S] [--faults N] [--workers N]`: the verifier by itself. Exits 0 when all is
 * well, 1 when a promise was broken, 3 when the run is void because too few faults hit live work.
 */
import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import { verify } from './run.ts'

const usage = 'usage: npm run chaos -- [--minutes N] [--seed S] [--faults N] [--workers N]'

/** @throws Error that names the argument */
function readArguments(): { minutes: number; seed: number; asked: number | undefined; workers: number } {
  const text = { type: 'string' } as const
  const { values } = parseArgs({ options: { minutes: text, seed: text, faults: text, workers: text } })
  const number = (name: keyof typeof values, least: number, most: number): number | undefined => {
    const value = values[name]
    if (value === undefined) return undefined
    if (value.trim() === '' || !(Number(value) >= least && Number(value) <= most))
      throw new Error(`--${name}: ${JSON.stringify(value)} is not a number from ${least} to ${most}\n${usage}`)
    return Number(value)
  }
  return {
    minutes: number('minutes', 0.2, 24 * 60) ?? 2,
    seed: Math.trunc(number('seed', 0, 2 ** 31 - 1) ?? randomInt(2 ** 31)),
    asked: number('faults', 0, 1e6),
    workers: Math.trunc(number('workers', 1, 32) ?? 3),
  }
}

try {
  const outcome = await verify({ ...readArguments(), isPatient: true, say: (line) => void process.stdout.write(`${line}\n`) })
  const { verdict, voids } = outcome
  const words = outcome.isGood
    ? 'all is well'
    : verdict.violations.length > 0 || voids.length === 0
      ? 'a promise was broken'
      : 'void: this run shows nothing'
  process.stdout.write(`${words}\n`)
  process.exit(outcome.isGood ? 0 : words.startsWith('void') ? 3 : 1)
} catch (error) {
  process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
  process.exit(2)
}
