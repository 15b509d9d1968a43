/**
 * `npm run bench:compare -- --base REF [--only NAME,NAME] [--rounds N]`: the figures of this working tree beside those
 * of another commit. Both run in turn, each by its own `bench/main.ts` as a process of its own, so that a machine that
 * drifts drifts for both. Prints the median of the rounds' head ÷ base for each figure, and exits 1 when one is worse
 * by more than 5 %.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { root } from '../src/config.ts'
import { describeMachine, isBusy } from './machine.ts'
import { describe, verdicts, type Run } from './verdict.ts'

const say = (line: string): void => void process.stdout.write(`${line}\n`)

function git(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync('git', args, { cwd: root, encoding: 'utf8' })
  if (status !== 0) throw new Error(`git ${args.join(' ')}: ${stderr.trim()}`)
  return stdout.trim()
}

const differs = (ref: string, ...paths: string[]): boolean =>
  spawnSync('git', ['diff', '--quiet', ref, '--', ...paths], { cwd: root }).status !== 0

/**
 * The commit in a folder of its own, with the packages of this tree, and with its addon where the sources of the two
 * are the same.
 */
function checkOut(commit: string, folder: string): string {
  const tree = join(folder, 'base')
  git('worktree', 'add', '--detach', '--quiet', tree, commit)
  symlinkSync(join(root, 'node_modules'), join(tree, 'node_modules'))
  if (differs(commit, 'package-lock.json')) say('! The base names other npm packages; it runs with those of this tree.')
  const addon = join(root, 'native', 'build')
  if (!existsSync(addon)) return tree
  if (differs(commit, 'native/src', 'native/CMakeLists.txt')) say('! The native addon is another one; the base runs without it.')
  else {
    mkdirSync(join(tree, 'native'), { recursive: true })
    symlinkSync(addon, join(tree, 'native', 'build'))
  }
  return tree
}

let running: ChildProcess | undefined

/** One run of a tree's own benchmarks. @throws Error when it ends without figures */
async function measure(tree: string, only: readonly (string | undefined)[], folder: string): Promise<Run> {
  const figures: Run[number][] = []
  for (const name of only) {
    const json = join(folder, 'figures.json')
    rmSync(json, { force: true })
    const args = ['--import', 'tsx', join(tree, 'bench', 'main.ts'), '--json', json, ...(name === undefined ? [] : ['--only', name])]
    const child = spawn(process.execPath, args, { cwd: tree, stdio: ['ignore', 'pipe', 'pipe'] })
    running = child
    let words = ''
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (words += text))
    const code = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve))
    running = undefined
    // 1: a figure misses its target, or could not be measured, which leaves it out of the file.
    if ((code !== 0 && code !== 1) || !existsSync(json)) throw new Error(`${args.join(' ')} ended with ${code}:\n${words}`)
    figures.push(...(JSON.parse(readFileSync(json, 'utf8')) as { figures: Run }).figures)
    for (const [void_] of words.matchAll(/^.*! no figure: .*$/gm)) say(`  ${void_.trim()}`)
  }
  return figures
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { base: { type: 'string' }, only: { type: 'string' }, rounds: { type: 'string', default: '5' } },
  })
  const rounds = Number(values.rounds)
  if (values.base === undefined || !(rounds >= 1))
    throw new Error('usage: npm run bench:compare -- --base REF [--only NAME,NAME] [--rounds N]')
  const only = values.only?.split(',') ?? [undefined]
  const commit = git('rev-parse', '--verify', `${values.base}^{commit}`)
  const machine = await describeMachine()
  say(
    `${machine.cpu}, ${machine.cores} cores, ${machine.os}, Node ${machine.node}, Redis ${machine.redis}; load average ${machine.loadAverage.join(' ')}`,
  )
  if (isBusy(machine)) say('! The machine is busy with something else; the pairs are still taken side by side.')

  const folder = mkdtempSync(join(tmpdir(), 'darkroom-compare-'))
  try {
    const tree = checkOut(commit, folder)
    const sides = { base: [] as Run[], head: [] as Run[] }
    const order = [
      ['base', tree],
      ['head', root],
    ] as const
    for (let round = 0; round < rounds; round++) {
      // Which comes first alternates, so that a drift weighs on both.
      for (const [side, place] of round % 2 === 0 ? order : order.toReversed()) sides[side].push(await measure(place, only, folder))
      say(`round ${round + 1} of ${rounds}`)
    }
    const found = verdicts(sides.base, sides.head)
    say(`\nhead ÷ base, median of ${rounds} pairs; base is ${git('log', '-1', '--format=%h %s', commit)}`)
    for (const verdict of found) say(describe(verdict))
    if (found.length === 0) throw new Error('neither side has measured a figure')
    if (found.some(({ isLoss }) => isLoss)) process.exitCode = 1
  } finally {
    if (existsSync(join(folder, 'base'))) git('worktree', 'remove', '--force', join(folder, 'base'))
    rmSync(folder, { recursive: true, force: true })
  }
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => running?.kill(signal))
await main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
  process.exitCode = 2
})
