/**
 * The verdict over a run, from what was gathered: submissions and their answers, sessions as HTTP shows them,
 * histories, the ledger. Pure: the verifier's own tests hand it doctored evidence.
 */
import { isDeepStrictEqual } from 'node:util'
import { ended, type SessionEvent, type Status } from '../../../src/engine/session.ts'
import { expectedOf, endsOf, type Expected } from './expectation.ts'
import type { Ran } from './faults.ts'
import { nodesOf, insideChild, undoOf, type Line, type Node, type Output } from '../../support/program.ts'
import type { Scenario } from './program.ts'

const ascending = (numbers: readonly number[]): number[] => numbers.toSorted((a, b) => a - b)

/** A session as HTTP gives it, as far as it is looked at here. */
export interface View {
  id: string
  workflow: string
  status: Status
  input: Record<string, unknown>
  output: unknown
  error: { code: string; message: string } | null
  parent: string | null
  [more: string]: unknown
}

export interface Submitted {
  scenario: Scenario
  /** Ids in the 2xx answers that it got. */
  ids: string[]
  /** After a submission of which nobody knew: whether the list had it before the same key was sent again. */
  wasThere: { id: string | null } | null
  /** What the same key answered when all was over. */
  again: { status: number; id: string } | null
  /** As it was first seen to have ended; null when nobody saw that. */
  first: View | null
  /** Entries of its event stream, over all reconnections. */
  streamed: { id: number; type: string }[]
}

export interface Found {
  view: View
  history: SessionEvent[]
  /** The same a while after everything had ended and every worker had gone. */
  last: { view: View; entries: number }
}

export interface Evidence {
  pictures: string[]
  submitted: Submitted[]
  found: Found[]
  /** Of each program, by path. */
  ledger: Map<string, Map<string, Line[]>>
  /** What processes, leases and queues were left, in words. */
  leftovers: string[]
  /** Answers that nobody should get. */
  answers: string[]
  /** What ran, by the machine's clock. */
  attempts: readonly Pick<Ran, 'session' | 'step' | 'from' | 'to'>[]
  /** What was asked for beside the programs, and accepted. */
  chores: Chore[]
}

export type Chore =
  | { is: 'fork'; id: string; of: string }
  | { is: 'batch'; id: string; seeds: number[] }
  /** `started`: sessions that a schedule says it has started. */
  | { is: 'schedule'; id: string; started: string[] }

export type Rule =
  | 'lost'
  | 'doubled session'
  | 'doubled result'
  | 'wrong result'
  | 'does not end'
  | 'goes on after its end'
  | 'changed after its end'
  | 'history'
  | 'late attempt'
  | 'went on while paused'
  | 'ledger'
  | 'events'
  | 'family'
  | 'undo'
  | 'over its limit'
  | 'chore'
  | 'left over'
  | 'answer'

export interface Violation {
  rule: Rule
  /** Id of the session, or '' when it is of the whole farm. */
  session: string
  detail: string
}

export interface Verdict {
  violations: Violation[]
  /** Sessions that ended otherwise than asked because the farm was told to give them up, in words: named, and few. */
  excused: string[]
}

const statusOf = (event: SessionEvent): Status => event.type.replace('session.', '') as Status

export function judge(evidence: Evidence): Verdict {
  const violations: Violation[] = [
    ...evidence.leftovers.map((detail): Violation => ({ rule: 'left over', session: '', detail })),
    ...evidence.answers.map((detail): Violation => ({ rule: 'answer', session: '', detail })),
    ...judgeSubmissions(evidence),
    ...judgeLimits(evidence),
    ...judgeChores(evidence),
  ]
  const excused: string[] = []
  const byId = new Map(evidence.found.map((found) => [found.view.id, found]))
  const scenarios = new Map(evidence.submitted.map(({ scenario }) => [scenario.key, scenario]))
  for (const found of evidence.found) {
    const { view } = found
    const own = [...judgeHistory(found), ...judgeLedger(found, evidence), ...judgeUndo(found, evidence, byId)]
    own.push(...judgeFamily(found, byId))
    const key = view.input['key'] as string | undefined
    const scenario = key === undefined ? undefined : scenarios.get(key)
    const result = judgeResult(found, scenario, evidence, byId)
    if (result && result.rule === 'wrong result' && isGivenUp(found, byId))
      excused.push(`${view.id} (${key ?? view.workflow}): ${result.detail}`)
    else if (result) own.push(result)
    violations.push(...own)
  }
  return { violations, excused }
}

function judgeSubmissions({ submitted, found }: Evidence): Violation[] {
  const problems: Violation[] = []
  const say = (rule: Rule, session: string, detail: string): void => void problems.push({ rule, session, detail })
  const byId = new Map(found.map((each) => [each.view.id, each]))
  for (const { scenario, ids, wasThere, again, first, streamed } of submitted) {
    const [id] = ids
    if (new Set(ids).size > 1) say('doubled session', id ?? '', `the key ${scenario.key} was answered with ${[...new Set(ids)].join(', ')}`)
    for (const each of new Set(ids)) if (!byId.has(each)) say('lost', each, `${scenario.key} was accepted, and is not in the list`)
    if (wasThere && wasThere.id !== null && !ids.includes(wasThere.id))
      say('doubled session', wasThere.id, `${scenario.key} was there already, but its key was answered with ${id}`)
    if (id !== undefined && again && (again.status !== 200 || again.id !== id))
      say('lost', id, `the key ${scenario.key} was answered with ${again.status} ${again.id} when all was over`)
    const session = id === undefined ? undefined : byId.get(id)
    if (!session) continue
    if (first && !isDeepStrictEqual(first, session.view))
      say('changed after its end', session.view.id, `first seen as ${JSON.stringify(first)}, then as ${JSON.stringify(session.view)}`)
    const told = session.history.slice(0, streamed.length).map(({ type }, i) => ({ id: i + 1, type: type as string }))
    if (!isDeepStrictEqual(streamed, told))
      say('events', session.view.id, `the stream told ${JSON.stringify(streamed)}, the history ${JSON.stringify(told)}`)
  }
  const names = new Map<string, string>()
  for (const { view } of found) {
    const { key, path } = view.input as { key?: string; path?: string }
    if (key === undefined) continue
    const name = `${key} ${path}`
    const other = names.get(name)
    if (other !== undefined) say('doubled session', view.id, `${name} is ${other} too`)
    names.set(name, view.id)
  }
  return problems
}

/** What holds of every session, whatever it does. */
function judgeHistory({ view, history, last }: Found): Violation[] {
  const problems: Violation[] = []
  const say = (rule: Rule, detail: string): void => void problems.push({ rule, session: view.id, detail })
  if (history.filter(({ type }) => type === 'session.created').length !== 1 || history[0]?.type !== 'session.created')
    say('history', 'it does not begin with its one creation')
  const ends = history.filter((event) => ended.has(statusOf(event)))
  if (!ended.has(view.status) || ends.length === 0) say('does not end', `it is ${view.status}`)
  if (ends.length > 1) say('goes on after its end', `it ended ${ends.length} times: ${ends.map(({ type }) => type).join(', ')}`)
  const [end] = ends
  if (end && history.at(-1) !== end) say('goes on after its end', `${history.at(-1)?.type} came after ${end.type}`)
  if (end && statusOf(end) !== view.status) say('history', `it is ${view.status}, its history says ${end.type}`)
  if (ended.has(view.status) && !isDeepStrictEqual(last.view, view))
    say('changed after its end', `was ${JSON.stringify(view)}, became ${JSON.stringify(last.view)}`)
  if (last.entries !== history.length) say('goes on after its end', `its history grew from ${history.length} to ${last.entries} entries`)

  const results = new Set<string>()
  /**
   * Whom each step was given to last. One that has lost its lease may still write, as long as nobody else has taken the
   * step.
   */
  const attempts = new Map<string, { id: string; isLost: boolean }>()
  const mustHold = (type: string, key: string, attemptId: string): void => {
    const held = attempts.get(key)?.id
    if (held !== attemptId) say('late attempt', `${type} of ${key} is of ${attemptId}, ${held ?? 'nobody'} held it`)
  }
  const told = new Set<string>()
  let isPaused = false
  for (const { type, key = '', attemptId = '' } of history) {
    if (
      isPaused &&
      (type.startsWith('step.') || type === 'timer.fired' || type === 'child.ended' || type === 'signal.received') &&
      type !== 'step.noted'
    )
      say('went on while paused', `${type} ${key}`)
    // oxlint-disable-next-line typescript/switch-exhaustiveness-check -- the others may come at any time
    switch (type) {
      case 'session.paused':
        isPaused = true
        break
      case 'session.resumed':
        isPaused = false
        break
      case 'step.started': {
        const held = attempts.get(key)
        if (held && !held.isLost) say('late attempt', `${key} was given to ${attemptId} while ${held.id} held it`)
        if (results.has(key)) say('doubled result', `${key} was given to ${attemptId} after its result`)
        attempts.set(key, { id: attemptId, isLost: false })
        break
      }
      case 'step.completed':
      case 'step.failed':
        if (results.has(key)) say('doubled result', `${key} has another result, of ${attemptId}`)
        results.add(key)
        mustHold(type, key, attemptId)
        attempts.delete(key)
        break
      case 'step.retrying':
      case 'step.released':
        mustHold(type, key, attemptId)
        attempts.delete(key)
        break
      case 'step.recovered':
        mustHold(type, key, attemptId)
        attempts.set(key, { id: attemptId, isLost: true })
        break
      case 'timer.fired':
      case 'child.ended':
        if (told.has(key)) say('doubled result', `${type} ${key} came twice`)
        told.add(key)
        break
      default:
        break
    }
  }
  return problems
}

/** Every result that counts was computed by a step, once, and no step ran without having been taken. */
function judgeLedger({ view, history }: Found, { ledger, submitted }: Evidence): Violation[] {
  const { key, path: own } = view.input as { key?: string; path?: string }
  if (key === undefined || own === undefined) return []
  const problems: Violation[] = []
  const say = (detail: string): void => void problems.push({ rule: 'ledger', session: view.id, detail })
  const program = submitted.find(({ scenario }) => scenario.key === key)?.scenario.program
  if (!program) {
    say(`nobody submitted ${key}`)
    return problems
  }
  const lines = ledger.get(key) ?? new Map<string, Line[]>()
  const counted = new Map(
    [...lines].flatMap(([path, all]) => all.flatMap(({ token }) => (token === undefined ? [] : [[token, path] as const]))),
  )
  const isOwn = (path: string): boolean => path.startsWith(own) && !path.slice(own.length).includes('/')
  const tokens = new Map<string, string>()
  let taken = 0
  for (const event of history) {
    if (!event.step?.startsWith('test.')) continue
    if (event.type === 'step.started') taken++
    if (event.type !== 'step.completed') continue
    const { token = '' } = (event['output'] ?? {}) as { token?: string }
    const path = counted.get(token)
    if (path === undefined || !isOwn(path)) say(`the result ${token} of ${event.key} is in no line of its steps`)
    else if (tokens.has(path))
      problems.push({ rule: 'doubled result', session: view.id, detail: `${path} has two results, ${token} and ${tokens.get(path)}` })
    else tokens.set(path, token)
  }
  const started = [...lines]
    // What undoes them runs in a session of its own.
    .filter(([path]) => isOwn(path) && !path.startsWith(undoOf('')))
    .reduce((sum, [, all]) => sum + all.filter(({ is }) => is === 'started').length, 0)
  if (started > taken) say(`its steps ran ${started} times, but were taken ${taken} times`)
  for (const [path, token] of Object.entries((view.status === 'succeeded' && (view.output as Output | null)?.tokens) || {})) {
    if (counted.get(token) !== path) say(`its output names ${token} for ${path}, the ledger ${counted.get(token) ?? 'nothing'}`)
    if (isOwn(path) && tokens.get(path) !== token)
      say(`its output names ${token} for ${path}, its history ${tokens.get(path) ?? 'nothing'}`)
  }
  return problems
}

/** Every count of a session that came to nothing is undone once, the last one first; of any other none is. */
function judgeUndo({ view, history }: Found, { ledger }: Evidence, byId: Map<string, Found>): Violation[] {
  if (!view.workflow.startsWith('undoable@')) return []
  const problems: Violation[] = []
  const say = (detail: string): void => void problems.push({ rule: 'undo', session: view.id, detail })
  const lines = ledger.get(view.input['key'] as string) ?? new Map<string, Line[]>()
  const pathOf = new Map([...lines].flatMap(([path, all]) => all.flatMap(({ token }) => (token ? [[token, path] as const] : []))))
  const counted = (events: SessionEvent[]): string[] =>
    events
      .filter(({ type, step }) => type === 'step.completed' && step === 'test.count')
      .map((event) => pathOf.get((event['output'] as { token: string }).token) ?? 'a count of nobody')
  const done = view.status === 'succeeded' ? [] : counted(history)
  const undo = view['undo'] === null ? undefined : byId.get(view['undo'] as string)
  if (done.length === 0 && view['undo'] !== null) say(`${JSON.stringify(view['undo'])} undoes what was not done`)
  if (done.length > 0 && !undo) say(`nothing undoes ${done.join(', ')}`)
  if (undo && undo.view.status !== 'succeeded') say(`${undo.view.id}, which undoes it, is ${undo.view.status}`)
  const undone = undo ? counted(undo.history) : []
  if (undo && !isDeepStrictEqual(undone, done.toReversed().map(undoOf))) say(`done were ${done.join(', ')}, undone ${undone.join(', ')}`)
  return problems
}

/**
 * Processes let in by what each of them has read of all shards: at the same moment they may let in one of each.
 */
const atTheSameMoment = 2

/** Of sessions with one concurrency key no more have steps on devices at once than its limit says. */
function judgeLimits({ found, attempts }: Evidence): Violation[] {
  const limits = new Map<string, number>()
  const keyOf = new Map<string, string>()
  for (const { view } of found) {
    const group = view['concurrency'] as { key: string; limit: number } | null | undefined
    if (!group) continue
    limits.set(group.key, group.limit)
    keyOf.set(view.id, group.key)
  }
  return [...limits].flatMap(([key, limit]): Violation[] => {
    const own = attempts.filter(
      ({ session, step }) => keyOf.get(session) === key && (step === 'test.device' || step.startsWith('inference.')),
    )
    const most = own.map(
      (one) => new Set(own.filter((other) => other.from <= one.from && one.from < other.to).map(({ session }) => session)),
    )
    const worst = most.toSorted((a, b) => b.size - a.size)[0]
    if (!worst || worst.size <= limit + atTheSameMoment) return []
    return [{ rule: 'over its limit', session: '', detail: `${[...worst].join(', ')} had devices at once, with a key for ${limit}` }]
  })
}

/** Forks, batches and schedules: what was accepted is there, and came to what it was asked for. */
function judgeChores({ chores, found }: Evidence): Violation[] {
  const byId = new Map(found.map((each) => [each.view.id, each.view]))
  const childrenOf = (id: string): View[] => found.map(({ view }) => view).filter(({ parent }) => parent === id)
  const problems: Violation[] = []
  const say = (session: string, detail: string): void => void problems.push({ rule: 'chore', session, detail })
  for (const chore of chores) {
    const { id } = chore
    if (chore.is === 'schedule') {
      if (new Set(chore.started).size < chore.started.length) say(id, `the schedule has started ${chore.started.join(', ')}`)
      for (const session of chore.started)
        if (!byId.has(session)) say(session, `the schedule ${id} has started it, and it is not in the list`)
      continue
    }
    const view = byId.get(id)
    if (!view) say(id, `the ${chore.is} was accepted, and is not in the list`)
    else if (chore.is === 'fork') {
      const { session } = (view['forkOf'] ?? {}) as { session?: string }
      if (session !== chore.of) say(id, `it is a fork of ${session}, not of ${chore.of}`)
    } else {
      const n = chore.seeds.length
      const counts = { total: n, succeeded: n, failed: 0, cancelled: 0 }
      if (view.status !== 'succeeded' || !isDeepStrictEqual(view.output, counts))
        say(id, `the batch ${view.status}: ${JSON.stringify(view.output)}`)
      const seeds = childrenOf(id).map(({ input }) => input['seed'] as number)
      if (!isDeepStrictEqual(ascending(seeds), ascending(chore.seeds))) say(id, `its items are those of the seeds ${seeds.join(', ')}`)
    }
  }
  return problems
}

/** What a parent was told of a child is how that child ended. */
function judgeFamily({ view, history }: Found, byId: Map<string, Found>): Violation[] {
  const problems: Violation[] = []
  const say = (detail: string): void => void problems.push({ rule: 'family', session: view.id, detail })
  for (const event of history) {
    if (event.type !== 'child.ended') continue
    const child = byId.get(event['session'] as string)
    if (!child) say(`it was told of ${String(event['session'])}, which is not there`)
    else if (child.view.status !== event['status'])
      say(`it was told that ${child.view.id} ${String(event['status'])}, but that ${child.view.status}`)
  }
  if (view.parent !== null && !byId.has(view.parent)) say(`its parent ${view.parent} is not there`)
  return problems
}

function judgeResult(
  found: Found,
  scenario: Scenario | undefined,
  { pictures }: Evidence,
  byId: Map<string, Found>,
): Violation | undefined {
  const { view } = found
  if (!ended.has(view.status)) return undefined
  const expected = expectations(found, scenario, pictures, byId)
  if (expected.some((each) => isAs(view, each, pictures))) return undefined
  const is = { status: view.status, output: view.output, error: view.error }
  return {
    rule: 'wrong result',
    session: view.id,
    detail: `${scenario?.key ?? view.workflow} came to ${JSON.stringify(is)}, expected ${JSON.stringify(expected)}`,
  }
}

type Wanted = Expected | { ends: 'succeeded'; picture: number } | { ends: 'succeeded'; anyhow: true }

function expectations({ view }: Found, scenario: Scenario | undefined, pictures: readonly string[], byId: Map<string, Found>): Wanted[] {
  if (view.parent === null && scenario) return endsOf(scenario, pictures)
  // What they come to is looked at beside what they are of.
  if (/^(undo|batch)@/.test(view.workflow)) return [{ ends: 'succeeded', anyhow: true }]
  // A child whose parent gave it up is cancelled, unless it had ended before.
  const parent = view.parent === null ? undefined : byId.get(view.parent)
  const wasTold = parent?.history.some((event) => event.type === 'child.ended' && event['session'] === view.id) ?? true
  const givenUp: Wanted[] = wasTold ? [] : [{ ends: 'cancelled' }]
  if (!scenario) return [{ ends: 'succeeded', picture: view.input['seed'] as number }, ...givenUp]
  const path = view.input['path'] as string
  const body = childAt(scenario.program, path)
  return body ? [expectedOf(body, path, pictures), ...givenUp] : givenUp
}

function childAt(program: Node, path: string): Node | undefined {
  for (const { node, path: at } of nodesOf(program)) if (node.do === 'child' && insideChild(at) === path) return node.body
  return undefined
}

function isAs({ status, output, error }: View, expected: Wanted, pictures: readonly string[]): boolean {
  if (status !== expected.ends) return false
  if ('anyhow' in expected) return true
  if ('picture' in expected)
    return isDeepStrictEqual(
      (output as { images: { sha256: string }[] }).images.map(({ sha256 }) => sha256),
      [pictures[expected.picture]],
    )
  if (expected.ends === 'succeeded') {
    const { total, trace } = output as Output
    return isDeepStrictEqual({ total, trace }, expected.result)
  }
  return expected.ends === 'cancelled' || error?.code === expected.code
}

/**
 * Leases lost in a row, and deaths of a Python child, after which a session is given up: SPEC and the catalogue of
 * errors say so.
 */
const leasesInARow = 5
const childDeaths = 3

/** Whether the engine had reason to give the session, or one below it, up: its history shows the deaths. */
function isGivenUp({ view, history }: Found, byId: Map<string, Found>): boolean {
  const steps = new Map<string, { recovered: number; died: number }>()
  for (const event of history) {
    const { type, key = '' } = event
    const count = steps.get(key) ?? { recovered: 0, died: 0 }
    steps.set(key, count)
    const code = (event['error'] as { code?: string } | undefined)?.code
    if (type === 'step.recovered') count.recovered++
    if ((type === 'step.retrying' || type === 'step.failed') && (code === 'worker.child_died' || code === 'worker.child_hung')) count.died++
  }
  if ([...steps.values()].some(({ recovered, died }) => recovered >= leasesInARow || died >= childDeaths)) return true
  return [...byId.values()].some((other) => other.view.parent === view.id && isGivenUp(other, byId))
}
