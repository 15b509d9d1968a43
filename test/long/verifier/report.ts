/** What a reader sees of a run: how it goes, what it came to, and of a session that hangs all there is to know. */
import { keys } from '../../../src/keys.ts'
import type { Farm } from '../../support/farm.ts'
import { faultKinds, tally, type Injected, type PlannedFault, type Ran } from './faults.ts'
import { lacking } from './fleet.ts'
import type { Evidence, Verdict } from './judge.ts'
import { kinds } from './program.ts'

/** Columns as wide as they need to be; the first to the left, the others to the right. */
function table(head: string[], rows: (string | number)[][]): string {
  const cells = [head, ...rows.map((row) => row.map(String))]
  const widths = head.map((_, i) => Math.max(...cells.map((row) => (row[i] ?? '').length)))
  return cells
    .map((row) => `  ${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  ')}`)
    .join('\n')
}

export interface Figures {
  /** Lost leases that came back. */
  recoveries: number
  /**
   * The step that was longest without anybody, from the fault to its next attempt; null when no recovery is of a fault
   * of ours.
   */
  slowest: { ms: number; lost: Ran; next: Ran; fault: Injected } | null
  medianMs: number
}

export function recoveriesOf(attempts: readonly Ran[], hits: readonly Injected[]): Figures {
  const lost = attempts.filter(({ end }) => end === 'step.recovered')
  const found = lost.flatMap((each) => {
    const next = attempts.find((ran) => ran.key === each.key && ran.from >= each.to)
    const fault = hits.findLast(({ target, at }) => target === each.worker && at >= each.from - 50 && at <= each.to)
    return next && fault ? [{ ms: next.from - fault.at, lost: each, next, fault }] : []
  })
  found.sort((a, b) => a.ms - b.ms)
  return { recoveries: lost.length, slowest: found.at(-1) ?? null, medianMs: found[Math.floor(found.length / 2)]?.ms ?? 0 }
}

function wordsOf({ recoveries, slowest, medianMs }: Figures): string {
  if (!slowest) return `${recoveries} recoveries`
  const { ms, lost, next, fault } = slowest
  const s = (time: number): string => (time / 1000).toFixed(1)
  return `${recoveries} recoveries, running again ${s(medianMs)} s after their fault at the median; the slowest ${s(ms)} s: ${fault.kind} at ${s(fault.atMs)} s, its lease ended ${s(lost.to - fault.at)} s later, ${s(next.from - lost.to)} s until ${lost.step} ${lost.key} ran again`
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
  const uses = [...usesIn(evidence)].map(([what, times]) => `${times} × ${what}`)
  const counts = tally(plan, hits)
  const lines = [
    table(['sessions', 'all', ...ends, 'other'], [...roots, ...children]),
    '',
    table(
      ['faults', 'planned', 'hit'],
      [
        ...faultKinds.map((kind) =>
          lacking.has(kind) ? [kind, 'not here', ''] : [kind, counts.get(kind)?.planned ?? 0, counts.get(kind)?.hit ?? 0],
        ),
        ['all', plan.length, hits.length],
      ],
    ),
    '',
    `  ${uses.join(', ')}`,
    `  ${wordsOf(figures)}`,
    `  ${ownEnds} processes ended by themselves and were started again`,
    `  ${seconds.faults} s of faults, ${seconds.settling} s until all had ended`,
    ...verdict.excused.map((text) => `  given up with reason: ${text}`),
    ...voids.map((text) => `  VOID: ${text}`),
    ...verdict.violations
      .slice(0, 40)
      .map(({ rule, session, detail }) => `  FAILED: ${rule}${session && ` (${session})`}: ${detail.slice(0, 2000)}`),
  ]
  if (verdict.violations.length > 40) lines.push(`  … and ${verdict.violations.length - 40} more`)
  return lines.join('\n')
}

/** How often a run has used what is not in every session. */
export function usesIn({ chores, found, submitted }: Pick<Evidence, 'chores' | 'found' | 'submitted'>): Map<string, number> {
  const chore = (is: Evidence['chores'][number]['is']): number => chores.filter((each) => each.is === is).length
  const made = (of: (found: Evidence['found'][number]) => boolean): number => found.filter(of).length
  const asked = (of: (scenario: Evidence['submitted'][number]['scenario']) => boolean): number =>
    submitted.filter(({ scenario }) => of(scenario)).length
  return new Map([
    ['fork', chore('fork')],
    ['batch', chore('batch')],
    ['schedule', chore('schedule')],
    ['preemption', made(({ history }) => history.some((event) => event.type === 'step.released' && event['reason'] === 'preempt'))],
    ['undoing', made(({ view }) => view.workflow.startsWith('undo@'))],
    ['concurrency limit', made(({ view }) => Boolean(view['concurrency']))],
    ['approval', asked(({ signals }) => signals.some((signal) => signal.by === 'approval'))],
    ['bulk cancel', asked(({ cancelAtMs, cancelBy }) => cancelAtMs !== null && cancelBy === 'bulk')],
  ])
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
