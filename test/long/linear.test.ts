/**
 * Many clients of the same sessions under faults, for some 25 seconds; `npm run chaos -- --linear` is the same for as
 * long as one likes. `CHAOS_SEED` chooses other requests and another plan of faults.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import { needed } from './verifier/linear-clients.ts'
import { judgeHistories, spoil } from './verifier/linear-judge.ts'
import { verifyLinear } from './verifier/linear-run.ts'

const seed = Number(process.env['CHAOS_SEED'] ?? 20_261)
const say = (line: string): void => void process.stdout.write(`${line}\n`)

it(
  'four clients of each session, through two APIs, with workers, APIs, Redis and its line broken at random: one order explains all that they were answered',
  { timeout: 480_000 },
  async () => {
    const { problems, voids, isGood, histories } = await verifyLinear({ seed, minutes: 0.4, say })
    expect(problems).toEqual([])
    expect(voids).toEqual([])
    expect(isGood).toBe(true)
    // Of each session that was seen in two versions, two answers that are exchanged are found.
    const spoiled = new Map([...histories].flatMap(([key, history]) => [spoil(history)].flatMap((each) => (each ? [[key, each]] : []))))
    expect(spoiled.size).toBeGreaterThan(0)
    expect(judgeHistories(spoiled, needed).problems).toHaveLength(spoiled.size)
  },
)

it('the command fails when two recorded answers were exchanged', { timeout: 480_000 }, async () => {
  const main = join(root, 'test', 'long', 'verifier', 'main.ts')
  const options = ['--linear', '--spoil', '--minutes', '0.2', '--faults', '0', '--seed', String(seed)]
  const command = spawn(process.execPath, ['--import', 'tsx', main, ...options], { stdio: ['ignore', 'pipe', 'inherit'] })
  let told = ''
  command.stdout.on('data', (text: Buffer) => (told += text.toString()))
  const [code] = (await once(command, 'close')) as [number | null]
  expect(told).toMatch(/FAILED: \S+: no order explains these of its \d+ requests:\n/)
  expect(told).toMatch(/a promise was broken\n$/)
  expect(code).toBe(1)
})
