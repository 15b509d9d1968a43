/**
 * `npm run chaos -- [--minutes N] [--seed S] [--faults N] [--workers N]`: the verifier by itself. With `--linear` many
 * clients ask the same sessions for things at once, and what they were answered must fit into one order; with `--spoil`
 * besides, two of the answers are exchanged first. Exits 0 when all is well, 1 when a promise was broken, 3 when the
 * run is void because too few faults hit live work.
 */
import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import { verifyLinear } from './linear-run.ts'
import { verify } from './run.ts'

const usage = 'usage: npm run chaos -- [--minutes N] [--seed S] [--faults N] [--workers N] [--linear [--spoil]]'

/** @throws Error that names the argument */
function readArguments(): { minutes: number; seed: number; asked: number | undefined; workers: number; linear: boolean; spoil: boolean } {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean', default: false } as const
  const { values } = parseArgs({ options: { minutes: text, seed: text, faults: text, workers: text, linear: flag, spoil: flag } })
  if (values.spoil && !values.linear) throw new Error(`--spoil: only histories of --linear can be spoiled\n${usage}`)
  const number = (name: 'minutes' | 'seed' | 'faults' | 'workers', least: number, most: number): number | undefined => {
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
    linear: values.linear,
    spoil: values.spoil,
  }
}

const say = (line: string): void => void process.stdout.write(`${line}\n`)

try {
  const { linear, spoil, ...options } = readArguments()
  const { isGood, violations, voids } = linear
    ? await verifyLinear({ ...options, isSpoiled: spoil, say }).then(({ problems, ...rest }) => ({ ...rest, violations: problems.length }))
    : await verify({ ...options, isPatient: true, say }).then(({ verdict, ...rest }) => ({
        ...rest,
        violations: verdict.violations.length,
      }))
  const words = isGood ? 'all is well' : violations > 0 || voids.length === 0 ? 'a promise was broken' : 'void: this run shows nothing'
  process.stdout.write(`${words}\n`)
  process.exit(isGood ? 0 : words.startsWith('void') ? 3 : 1)
} catch (error) {
  process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
  process.exit(2)
}
