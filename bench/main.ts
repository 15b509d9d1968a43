/**
 * `npm run bench [-- --only NAME] [--json FILE]`: measures what the README and docs/benchmarks.md quote, on real Redis,
 * real processes and real HTTP. Exits 1 when a figure misses its target, or could not be measured.
 */
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { affinity } from './affinity.ts'
import { along } from './along.ts'
import { batch } from './batch.ts'
import { chain } from './chain.ts'
import { device } from './device.ts'
import { isAsked, type Benchmark, type Figure } from './figure.ts'
import { gpu } from './gpu.ts'
import { growth } from './growth.ts'
import { hop } from './hop.ts'
import { judging } from './judging.ts'
import { list } from './list.ts'
import { live } from './live.ts'
import { describeMachine, isBusy } from './machine.ts'
import { models } from './models.ts'
import { childRecovery, recovery, soleRecovery } from './recovery.ts'
import { submit } from './submit.ts'
import { tax } from './tax.ts'
import { together } from './together.ts'

const benchmarks: readonly Benchmark[] = [
  chain,
  submit,
  batch,
  hop,
  recovery,
  list,
  live,
  models,
  growth,
  along,
  device,
  affinity,
  childRecovery,
  soleRecovery,
  tax,
  together,
  ...gpu,
  judging,
]

const say = (line: string): void => void process.stdout.write(`${line}\n`)

function readArguments(): { json: string | undefined; only: string | undefined } {
  const { values } = parseArgs({ options: { json: { type: 'string' }, only: { type: 'string' } } })
  return { json: values.json, only: values.only }
}

/** Of an error that came while another one was being cleared up after, both. */
function words(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { error: later, suppressed } = error as { error?: unknown; suppressed?: unknown }
  return suppressed === undefined ? (error.stack ?? error.message) : `${words(suppressed)}\n   afterwards: ${words(later)}`
}

async function main(): Promise<void> {
  const { json, only } = readArguments()
  const chosen = benchmarks.filter(({ figures, isLong }) => (only !== undefined || !isLong) && figures.some((name) => isAsked(name, only)))
  if (chosen.length === 0) {
    const names = benchmarks.flatMap(({ figures }) => figures)
    throw new Error(`--only: there is no figure ${only}; there are ${names.join(', ')}, or how one of them begins`)
  }
  const machine = await describeMachine()
  say(`${machine.cpu}, ${machine.cores} cores, ${machine.memoryGB} GB, ${machine.os}`)
  say(`Node ${machine.node}, Redis ${machine.redis}, ${machine.durability}`)
  say(`${machine.date}, load average ${machine.loadAverage.join(' ')}`)
  if (isBusy(machine)) say('! The machine is busy with something else: what follows is worse than it would be, and not worth quoting.')

  const figures: Figure[] = []
  let isVoid = false
  for (const benchmark of chosen) {
    say(`\n── ${benchmark.figures.join(', ')}`)
    try {
      figures.push(...(await benchmark.measure((line) => say(`   ${line}`))).filter(({ name }) => isAsked(name, only)))
    } catch (error) {
      isVoid = true
      say(`   ! no figure: ${words(error)}`)
    }
  }
  say('')
  for (const { name, value, unit, target, pass } of figures)
    say(`${pass ? '✓' : '✗'} ${name.padEnd(22)} ${`${value} ${unit}`.trim().padEnd(12)} target ${target}`)
  if (json !== undefined) await writeFile(json, `${JSON.stringify({ machine, figures }, null, 2)}\n`)
  if (isVoid || figures.some(({ pass }) => !pass)) process.exitCode = 1
}

await main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
  process.exitCode = 2
})
