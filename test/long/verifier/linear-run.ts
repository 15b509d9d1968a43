/**
 * Sessions that several clients ask for things at once, under the faults of the verifier: submit under one key, pause,
 * resume, cancel, signal, look. What each client asked, when, and what it was answered must fit into one order of a
 * model of one session (`linear.ts`), over every kill and every answer that was lost.
 */
import { setMaxListeners } from 'node:events'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { root } from '../../../src/config.ts'
import { ended, type Status } from '../../../src/engine/session.ts'
import { step } from '../../support/program.ts'
import { sleep } from '../../support/wait.ts'
import { Driver } from './driver.ts'
import { faultKinds, planOf } from './faults.ts'
import { Fleet, lacking } from './fleet.ts'
import { linearize, sessionModel, type Answer, type Asked, type Operation } from './linear.ts'
import { stream } from './program.ts'
import type { RunOptions } from './run.ts'

export interface LinearOutcome {
  isGood: boolean
  violations: number
  voids: string[]
}

const apis = 2
/** Sessions at once, and the clients of each. */
const atOnce = 6
const clients = 4
/** Signals that a session succeeds after. */
const needed = 3
/** Until a session that nobody disturbs any more has ended, ms. */
const settleMs = 90_000
/** Histories that are shown whole. */
const shown = 3

type Operations = Operation<Asked, Answer>[]

/** One session, and what its clients have seen of it. */
interface Round {
  key: string
  ids: Set<string>
  operations: Operations
  /** How it has ended; undefined while nobody has seen that. */
  end: Status | undefined
  /** Its history has more orders than can be tried: it shows nothing. */
  isUntold?: boolean
}

export async function verifyLinear({
  seed,
  minutes,
  workers = 3,
  asked,
  say,
}: Omit<RunOptions, 'settleS' | 'isPatient'>): Promise<LinearOutcome> {
  const plan = planOf({ seed, minutes, workers, apis, kinds: faultKinds.filter((kind) => !lacking.has(kind)) })
  const least = asked ?? Math.ceil(plan.length / 2)
  say(
    `seed ${seed}: ${minutes} minutes, ${clients} clients a session on ${workers} workers and ${apis} APIs, ${plan.length} faults planned`,
  )
  await using fleet = await Fleet.start({ seed, workers, apis, module: pathToFileURL(join(root, 'test/support/program.ts')).href })
  const ledger = join(fleet.farm.folder, 'ledger')
  const over = new AbortController()
  setMaxListeners(0, over.signal)
  const driver = new Driver({ fleet, seed, ledger, over: over.signal, calm: Promise.resolve() })
  await driver.prepare()
  const startedAt = performance.now()
  const elapsed = (): number => performance.now() - startedAt
  const rounds: Round[] = []
  const open = new Set<Promise<void>>()
  const breaking = (async () => {
    for (const [i, fault] of plan.entries()) {
      await sleep(Math.max(0, fault.atMs - elapsed()))
      fleet.inject(fault, i)
    }
  })()
  let beCalm: () => void = () => undefined
  const calm = new Promise<void>((resolve) => (beCalm = resolve))
  while (elapsed() < minutes * 60_000) {
    if (open.size < atOnce) {
      const round: Round = { key: `l${seed}-${rounds.length}`, ids: new Set(), operations: [], end: undefined }
      const played: Promise<void> = play({ driver, round, ledger, draw: stream(seed, 'linear', rounds.length), calm }).finally(() =>
        open.delete(played),
      )
      rounds.push(round)
      open.add(played)
    }
    await sleep(200)
  }
  await breaking
  await fleet.calm()
  beCalm()
  await Promise.race([Promise.all(open), sleep(settleMs)])
  over.abort()
  await Promise.all(open)

  const problems = rounds.flatMap((round) => problemsOf(round))
  problems.push(...driver.answers.map((answer) => `an answer that nobody should get: ${answer}`))
  problems.push(...(await fleet.retire()), ...fleet.problems, ...(await fleet.end()))
  const all = rounds.flatMap(({ operations }) => operations)
  const unheard = all.filter(({ answer }) => answer === undefined).length
  const voids = [
    ...(fleet.injected.length < least ? [`${fleet.injected.length} faults were done, ${least} were asked for`] : []),
    ...(plan.length > 0 && unheard === 0 ? ['no answer was lost'] : []),
    ...(rounds.filter(({ isUntold }) => isUntold).length > rounds.length / 5 ? ['of too many sessions nobody can tell'] : []),
    ...(overlapping(rounds) === 0 ? ['no two clients asked at the same time'] : []),
  ]
  say(`${rounds.length} sessions, ${all.length} operations, ${unheard} of them unheard, ${overlapping(rounds)} beside another one`)
  say(`${rounds.filter(({ isUntold }) => isUntold).length} sessions have more orders than can be tried, and show nothing`)
  say(`${fleet.injected.length} of ${plan.length} faults done`)
  for (const text of [...voids.map((why) => `VOID: ${why}`), ...problems.map((problem) => `FAILED: ${problem}`)].slice(0, 40))
    say(`  ${text}`)
  return { isGood: problems.length === 0 && voids.length === 0, violations: problems.length, voids }
}

interface Play {
  driver: Driver
  round: Round
  ledger: string
  draw: () => number
  /** Resolves when the faults are over. */
  calm: Promise<void>
}

/** Plays one session to its end. */
async function play({ driver, round, ledger, draw, calm }: Play): Promise<void> {
  const { operations, ids, key } = round
  /** Asks once, and notes what came of it. */
  const ask = async (what: Asked, method: string, path: string, body?: object): Promise<Answer | undefined> => {
    const operation: Operations[number] = { asked: what, calledAt: performance.now(), answeredAt: Infinity, answer: undefined }
    operations.push(operation)
    const headers = what.do === 'submit' ? { 'Idempotency-Key': key } : {}
    const heard = await driver.ask(method, path, draw, { headers, ...(body && { body }) })
    if (!heard) return undefined
    operation.answeredAt = performance.now()
    const { status, output } = heard.json as { status?: Status; output?: { said?: { word?: string }[] } | null }
    const said = (output?.said ?? []).flatMap((each) => each.word ?? [])
    operation.answer = { code: heard.status, ...(what.do === 'get' && { status: status ?? '', said }) }
    if (what.do === 'submit') ids.add((heard.json as { id: string }).id)
    if (what.do === 'get' && status && ended.has(status)) round.end = status
    return operation.answer
  }
  const program = { do: 'sequence', of: [...Array.from({ length: needed }, () => ({ do: 'signal' })), step({ ms: 100 })] }
  const submission = { workflow: 'program', input: { ledger, key, program }, tags: [key] }
  const submit = () => ask({ do: 'submit' }, 'POST', '/v1/sessions', submission)
  const surely = async (act: () => Promise<Answer | undefined>): Promise<void> => {
    for (let i = 0; i < 300 && !(await act()); i++) await sleep(200)
  }
  await Promise.all([surely(submit), draw() < 0.5 ? surely(submit) : undefined])
  const [id] = ids
  if (id === undefined) return
  const path = `/v1/sessions/${id}`
  const signal = (word: string) => ask({ do: 'signal', word }, 'POST', `${path}/signal`, { type: 'go', eventId: word, data: { word } })
  const control = (verb: 'pause' | 'resume' | 'cancel') => ask({ do: verb }, 'POST', `${path}/${verb}`)
  const get = () => ask({ do: 'get' }, 'GET', path)
  const words = Array.from({ length: needed + 1 }, (_, i) => `w${i}`)
  const any = (): Promise<unknown> => {
    const what = draw()
    if (what < 0.4) return signal(words[Math.floor(draw() * words.length)] as string)
    if (what < 0.55) return control('pause')
    if (what < 0.75) return control('resume')
    return what < 0.78 ? control('cancel') : get()
  }
  const client = async (): Promise<void> => {
    for (let i = 0; i < 3; i++) {
      await sleep(draw() * 600)
      await any()
    }
  }
  await Promise.all(Array.from({ length: clients }, client))
  // What is left is asked for until it is over: in doubt only once nothing is broken any more.
  for (let i = 0; round.end === undefined && i < 400; i++) {
    if (i === 20) await calm
    // Each that nobody hears of makes more orders possible.
    if (i % 20 === 0) {
      await control('resume')
      for (const word of words) await signal(word)
    }
    await sleep(300)
    await get()
  }
}

/** Words of what does not fit. */
function problemsOf(round: Round): string[] {
  const { key, ids, operations, end } = round
  const problems: string[] = []
  if (ids.size > 1) problems.push(`${key} was answered with ${[...ids].join(', ')}`)
  if (ids.size > 0 && end === undefined) problems.push(`${key}, ${[...ids].join()}, has not ended`)
  const { is, order } = linearize(operations, sessionModel(needed))
  if (is === 'not')
    problems.push(
      `${key}, ${[...ids].join()}: no order explains its ${operations.length} operations; as far as it goes\n${order.map(inWords).join('\n')}\n    left:\n${operations
        .filter((each) => !order.includes(each))
        .slice(0, 20 * shown)
        .map(inWords)
        .join('\n')}`,
    )
  round.isUntold = is === 'untold'
  return problems
}

const inWords = ({ asked, calledAt, answeredAt, answer }: Operations[number]): string =>
  `    ${calledAt.toFixed(1)} to ${answeredAt.toFixed(1)}: ${JSON.stringify(asked)} → ${answer ? JSON.stringify(answer) : 'unheard'}`

/** How many operations another one of the same session was called beside. */
const overlapping = (rounds: readonly Round[]): number =>
  rounds.reduce(
    (sum, { operations }) =>
      sum +
      operations.filter((one) =>
        operations.some((other) => other !== one && other.calledAt < one.answeredAt && one.calledAt < other.answeredAt),
      ).length,
    0,
  )
