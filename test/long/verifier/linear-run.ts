/**
 * Sessions that several clients ask for things at once, under the faults of the verifier: submit under one key, pause,
 * resume, cancel, signal, look. What each client asked, when, and what it was answered must fit into one order of a
 * model of one session, over every kill and every answer that was lost.
 */
import { setMaxListeners } from 'node:events'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { root } from '../../../src/config.ts'
import { sleep } from '../../support/wait.ts'
import { Driver } from './driver.ts'
import { attemptsIn, byMachine, faultKinds, isHit, planOf, type Asked, type FaultKind, type Injected, type Ran } from './faults.ts'
import { Fleet, lacking } from './fleet.ts'
import { clients, needed, play, type Round } from './linear-clients.ts'
import { judgeHistories, spoil } from './linear-judge.ts'
import type { Recorded } from './linear-model.ts'
import { stream } from './program.ts'
import { dumpOf } from './report.ts'
import type { RunOptions } from './run.ts'

export interface LinearOptions extends Omit<RunOptions, 'settleS' | 'isPatient'> {
  /** Two recorded answers of one session are exchanged before the verdict, to see that this is found. */
  isSpoiled?: boolean
}

export interface LinearOutcome {
  isGood: boolean
  problems: string[]
  voids: string[]
  histories: ReadonlyMap<string, readonly Recorded[]>
}

const apis = 2
/** Sessions at once, beside those whose clients wait for calm. */
const atOnce = 9
/** Until the sessions that nobody disturbs any more have ended, ms. */
const settleMs = 120_000
/** Sessions without an end that are shown whole. */
const shown = 3

/** No picture is drawn here, so there is nothing to meet for a fault of a Python child. */
const isOfUse = (kind: FaultKind): boolean => !kind.startsWith('child.') && !lacking.has(kind)

export async function verifyLinear({
  seed,
  minutes,
  workers = 3,
  isSpoiled = false,
  say,
  ...options
}: LinearOptions): Promise<LinearOutcome> {
  const startedOn = Date.now()
  const plan = planOf({ seed, minutes, workers, apis, kinds: faultKinds.filter(isOfUse) })
  const asked = options.asked ?? Math.ceil(plan.length / 2)
  say(
    `seed ${seed}: ${minutes} minutes, ${clients} clients a session on ${workers} workers and ${apis} APIs, ${plan.length} faults planned, ${asked} must hit live work`,
  )
  await using fleet = await Fleet.start({ seed, workers, apis, module: pathToFileURL(join(root, 'test/support/program.ts')).href })
  const ledger = join(fleet.farm.folder, 'ledger')
  const over = new AbortController()
  setMaxListeners(0, over.signal)
  let beCalm: () => void = () => undefined
  const calm = new Promise<void>((resolve) => (beCalm = resolve))
  const driver = new Driver({ fleet, seed, ledger, over: over.signal, calm })
  await driver.prepare()

  // ---- clients and faults ----
  const startedAt = performance.now()
  const elapsed = (): number => performance.now() - startedAt
  const rounds: Round[] = []
  const open = new Set<Promise<void>>()
  const busy = new Set<Round>()
  const breaking = (async () => {
    for (const [i, fault] of plan.entries()) {
      await sleep(Math.max(0, fault.atMs - elapsed()))
      fleet.inject(fault, i)
    }
  })()
  while (elapsed() < minutes * 60_000) {
    if (busy.size < atOnce) {
      const round: Round = { key: `l${seed}-${rounds.length}`, history: [], end: undefined }
      const draw = stream(seed, 'linear', rounds.length)
      const leave = (): void => void busy.delete(round)
      const played: Promise<void> = play({ driver, round, ledger, draw, calm, onDoubt: leave, over: over.signal })
        .catch((error: Error) => void driver.answers.push(error.message))
        .finally(() => {
          leave()
          open.delete(played)
        })
      rounds.push(round)
      busy.add(round)
      open.add(played)
    }
    await sleep(200)
  }
  await breaking
  await fleet.calm()

  // ---- quiet: everything has to end now ----
  beCalm()
  await Promise.race([Promise.all(open), sleep(settleMs)])
  over.abort()
  await Promise.all(open)
  const ids = rounds.map(idOf).filter((id) => id !== undefined)
  const stuck = rounds.filter(({ end }) => end === undefined)
  for (const id of stuck.map(idOf).slice(0, shown)) if (id !== undefined) say(await dumpOf(fleet.farm, id))
  const attempts: Ran[] = []
  for (const id of ids) attempts.push(...attemptsIn(id, await fleet.farm.history(id), byMachine(startedOn, Date.now())))
  const problems = stuck.map((round) => `${round.key}, ${idOf(round) ?? 'which nobody has heard of'}, has not ended`)
  problems.push(...driver.answers.map((answer) => `an answer that nobody should get: ${answer}`))
  problems.push(...(await fleet.retire()), ...fleet.problems, ...(await fleet.end()))

  // ---- the verdict ----
  const histories = new Map(rounds.map(({ key, history }) => [key, history]))
  if (isSpoiled) say(`two answers of ${spoilOne(histories)} are exchanged`)
  const verdict = judgeHistories(histories, needed)
  problems.push(...verdict.problems)
  const hits = fleet.injected.filter((fault) => isMet(fault, attempts, driver.asked))
  const voids = [
    ...(hits.length < Math.max(asked, 1) ? [`${hits.length} faults hit live work, ${asked} were asked for`] : []),
    ...verdict.voids,
  ]
  const { requests, unheard, beside, untold, spoiled, foundSpoiled } = verdict
  say(
    `${rounds.length} sessions, ${requests} requests: of ${unheard} the answer was lost, ${beside} were answered beside another one of their session`,
  )
  say(`${hits.length} of ${plan.length} faults hit live work: ${hits.map(({ kind }) => kind).join(', ')}`)
  say(`${untold} sessions have more orders than can be tried; of ${spoiled} copies with two answers exchanged ${foundSpoiled} were found`)
  for (const text of [...voids.map((why) => `VOID: ${why}`), ...problems.map((problem) => `FAILED: ${problem}`)].slice(0, 40))
    say(`  ${text}`)
  return { isGood: problems.length === 0 && voids.length === 0, problems, voids, histories }
}

const idOf = ({ history }: Round): string | undefined => history.find(({ answer }) => answer?.seen)?.answer?.seen?.id

/** A fault also hits when it met a request: what is asked here are requests, and a step is of little length. */
function isMet(fault: Injected, attempts: readonly Ran[], requests: readonly Asked[]): boolean {
  if (isHit(fault, attempts, requests)) return true
  const isOfAll = ['redis', 'disk', 'line'].includes(fault.kind.split('.')[0] ?? '')
  return isOfAll && requests.some(({ from, to }) => from <= fault.at + fault.forMs && to >= fault.at)
}

/** @returns the key of the session @throws Error when no session was seen in two versions */
function spoilOne(histories: Map<string, Recorded[]>): string {
  for (const [key, history] of histories) {
    const spoiled = spoil(history)
    if (!spoiled) continue
    histories.set(key, spoiled)
    return key
  }
  throw new Error('no session was seen in two versions, so there are no two answers to exchange')
}
