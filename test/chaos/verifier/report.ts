/** What a reader sees of a run: how it goes, what it came to, and of a session that hangs all there is to know. */
import { keys } from '../../../src/keys.ts'
import type { Farm } from '../../support/farm.ts'
import { faultKinds, tally, type Injected, type PlannedFault, type Ran } from './faults.ts'
import type { Evidence, Verdict } from './judge.ts'
import { kinds } from './program.ts'

/** Columns as wide as they need to be; the first to the left, the others to the right. */
function table(head: string[], rows: (string | number)[][]): string {
  const cells = [head, ...rows.map((row) => row.map(String))]
  const widths = head.map((_, i) => Math.max(...cells.map((row) => (row[i] ?? '').length)))
  return cells.map((row) => `  ${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  ')}`).join('\n')
}

export interface Figures {
  /** Lost leases that came back, and how long the slowest step was without anybody, ms. */
  recoveries: number
  slowestMs: number
}

/** From the fault that ended an attempt to the next attempt at the same step. */
export function recoveriesOf(attempts: readonly Ran[], hits: readonly Injected[]): Figures {
  let [recoveries, slowestMs] = [0, 0]
  for (const [i, lost] of attempts.entries()) {
    if (lost.end !== 'step.recovered') continue
    recoveries++
    const next = attempts.slice(i + 1).find((ran) => ran.key === lost.key)
    const fault = hits.findLast(({ target, at }) => target === lost.worker && at >= lost.from - 50 && at <= lost.to)
    if (next && fault) slowestMs = Math.max(slowestMs, next.from - fault.at)
  }
  return { recoveries, slowestMs }
}

export interface Summary {
  evidence: Evidence
  verdict: Verdict
  voids: string[]
  plan: readonly PlannedFault[]
  hits: readonly Injected[]
  figures: Figures
  seconds: { faults: number; settling: number }
  /** Processes that ended without having been killed, and were started again. */
  ownEnds: number
}

export function summaryOf({ evidence, verdict, voids, plan, hits, figures, seconds, ownEnds }: Summary): string {
  const { submitted, found } = evidence
  const byId = new Map(found.map(({ view }) => [view.id, view]))
  const ends = ['succeeded', 'failed', 'cancelled'] as const
  const count = (kind: string, statuses: string[]): (string | number)[] => {
    const others = statuses.filter((status) => !(ends as readonly string[]).includes(status)).length
    return [kind, statuses.length, ...ends.map((end) => statuses.filter((status) => status === end).length), others]
  }
  const roots = kinds.map((kind) =>
    count(
      kind,
      submitted.filter(({ scenario }) => scenario.kind === kind).map(({ ids }) => byId.get(ids[0] ?? '')?.status ?? 'unknown'),
    ),
  )
  const children = ['program', 'image-generation'].map((workflow) =>
    count(
      `child ${workflow}`,
      found.filter(({ view }) => view.parent !== null && view.workflow.startsWith(`${workflow}@`)).map(({ view }) => view.status),
    ),
  )
  const counts = tally(plan, hits)
  const lines = [
    table(['sessions', 'all', ...ends, 'other'], [...roots, ...children]),
    '',
    table(
      ['faults', 'planned', 'hit'],
      [...faultKinds.map((kind) => [kind, counts.get(kind)?.planned ?? 0, counts.get(kind)?.hit ?? 0]), ['all', plan.length, hits.length]],
    ),
    '',
    `  ${figures.recoveries} recoveries, the slowest ${(figures.slowestMs / 1000).toFixed(1)} s after its fault; ${ownEnds} processes ended by themselves`,
    `  ${seconds.faults} s of faults, ${seconds.settling} s until all had ended`,
    ...verdict.excused.map((text) => `  given up with reason: ${text}`),
    ...voids.map((text) => `  VOID: ${text}`),
    ...verdict.violations.slice(0, 40).map(({ rule, session, detail }) => `  FAILED: ${rule}${session && ` (${session})`}: ${detail.slice(0, 2000)}`),
  ]
  if (verdict.violations.length > 40) lines.push(`  … and ${verdict.violations.length - 40} more`)
  return lines.join('\n')
}

/** Everything that Redis holds about a session. */
export async function dumpOf(farm: Farm, id: string): Promise<string> {
  const { eye } = farm
  const record = await eye.hgetall(keys.session(id))
  const shard = Number.parseInt(id, 10)
  const lines = [`── ${id}`, ...Object.entries(record).map(([field, value]) => `   ${field}: ${value}`), '   history:']
  lines.push(...(await eye.lrange(keys.history(id), 0, -1)).map((text) => `     ${text}`))
  lines.push(...(await eye.lrange(keys.inbox(id), 0, -1)).map((text) => `   inbox: ${text}`))
  for (const key of await eye.keys(keys.step(`${id}.*`))) lines.push(`   ${key}: ${JSON.stringify(await eye.hgetall(key))}`)
  for (const clock of ['leases', 'timers', 'outbox'] as const) {
    const members = await eye.zrange(keys[clock](shard), '0', '-1', 'WITHSCORES')
    for (let i = 0; i < members.length; i += 2) if (members[i]?.includes(id)) lines.push(`   ${clock}: ${members[i]} due ${members[i + 1]}`)
  }
  for (const key of await eye.keys(`darkroom:{q.*}:*${id}*`)) lines.push(`   ${key}`)
  lines.push(`   now: ${Date.now()}`)
  return lines.join('\n')
}
