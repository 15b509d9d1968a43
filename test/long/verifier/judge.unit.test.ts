/** The verifier must be able to fail: evidence of a run in which all is well, and the same with one thing wrong. */
import { describe, expect, it } from 'vitest'
import type { SessionEvent } from '../../../src/engine/session.ts'
import { attemptsIn, byMachine, clockStepMs, faultKinds, isHit, planOf, voids, type Asked, type Injected, type Ran } from './faults.ts'
import { judge, type Evidence, type Rule } from './judge.ts'
import type { Scenario } from './program.ts'

const parent = '0-00000000000000000000000001'
const child = '0-00000000000000000000000002'

/**
 * Two steps, the second in a child session; the first was lost once, and the session paused and resumed before its
 * child ended.
 */
function allIsWell(): Evidence {
  const step = (n: number) => ({ do: 'step' as const, n, ms: 0, lane: 'host' as const, isDeaf: true, flaky: null })
  const scenario: Scenario = {
    key: 's1-0',
    kind: 'paused',
    program: { do: 'sequence', of: [step(3), { do: 'child', body: step(4) }] },
    submit: 'surely',
    priority: 5,
    signals: [],
    pauses: [],
    moves: [],
    stops: [],
    cancelAtMs: null,
    cancelBy: 'verb',
    deadlineS: null,
    concurrency: null,
  }
  const event = (at: number, type: SessionEvent['type'], more: object = {}): SessionEvent => ({ at, type, ...more })
  const own = (id: string, attempt: string, worker: string) => ({ key: `${id}.1.0`, step: 'test.count', attemptId: attempt, worker })
  const common = { priority: 5, tags: [], error: null, progress: null }
  const view = {
    ...common,
    id: parent,
    workflow: 'program@1',
    status: 'succeeded' as const,
    input: { key: 's1-0', path: '', ledger: '/', program: scenario.program },
    output: { total: 7, trace: ['0=3', '1/=4'], tokens: { '0': 'a', '1/': 'b' } },
    parent: null,
  }
  const childView = {
    ...common,
    id: child,
    workflow: 'program@1',
    status: 'succeeded' as const,
    input: { key: 's1-0', path: '1/', ledger: '/', program: step(4) },
    output: { total: 4, trace: ['1/=4'], tokens: { '1/': 'b' } },
    parent,
  }
  const history = [
    event(0, 'session.created'),
    event(1, 'step.started', own(parent, 'a1', 'w1')),
    event(2, 'step.recovered', own(parent, 'a1', 'w1')),
    event(3, 'step.started', own(parent, 'a2', 'w2')),
    event(4, 'step.completed', { ...own(parent, 'a2', 'w2'), output: { n: 3, token: 'a' } }),
    event(5, 'session.pausing'),
    event(6, 'session.paused'),
    event(7, 'session.resumed'),
    event(8, 'child.ended', { key: `${parent}.2.0`, session: child, status: 'succeeded' }),
    event(9, 'session.succeeded'),
  ]
  const childHistory = [
    event(4, 'session.created'),
    event(5, 'step.started', own(child, 'b1', 'w2')),
    event(8, 'step.completed', { ...own(child, 'b1', 'w2'), output: { n: 4, token: 'b' } }),
    event(8, 'session.succeeded'),
  ]
  return {
    pictures: [],
    submitted: [
      {
        scenario,
        ids: [parent, parent],
        wasThere: null,
        again: { status: 200, id: parent },
        first: structuredClone(view),
        streamed: history.map(({ type }, i) => ({ id: i + 1, type })),
      },
    ],
    found: [
      { view, history, last: { view: structuredClone(view), entries: history.length } },
      { view: childView, history: childHistory, last: { view: structuredClone(childView), entries: childHistory.length } },
    ],
    ledger: new Map([
      [
        's1-0',
        new Map([
          [
            '0',
            [
              { is: 'started' as const, pid: 1, at: 1 },
              { is: 'started' as const, pid: 2, at: 3 },
              { is: 'counted' as const, token: 'a', pid: 2, at: 4 },
            ],
          ],
          [
            '1/',
            [
              { is: 'started' as const, pid: 2, at: 5 },
              { is: 'counted' as const, token: 'b', pid: 2, at: 8 },
            ],
          ],
        ]),
      ],
    ]),
    leftovers: [],
    answers: [],
    attempts: [],
    chores: [],
  }
}

type Parts = { run: Evidence; submitted: Evidence['submitted'][number]; found: Evidence['found'][number] }

/** Doctored histories keep their length known: what is looked for is the planted fault, not that. */
const put = ({ found, submitted }: Parts, at: number, event: Partial<SessionEvent>): void => {
  found.history.splice(at, 0, event as SessionEvent)
  found.last.entries = found.history.length
  submitted.streamed = found.history.map(({ type }, i) => ({ id: i + 1, type }))
}
const change = (parts: Parts, more: object): void => {
  for (const view of [parts.found.view, parts.found.last.view, parts.submitted.first]) Object.assign(view ?? {}, more)
}
const step = { key: `${parent}.1.0`, step: 'test.count' }

const planted: Record<string, [Rule, (parts: Parts) => void]> = {
  'a step with two results': [
    'doubled result',
    (parts) => put(parts, 5, { at: 4, type: 'step.completed', ...step, attemptId: 'a2', output: { n: 3, token: 'a' } }),
  ],
  'a step that was given out again after its result': [
    'doubled result',
    (parts) => put(parts, 5, { at: 4, type: 'step.started', ...step, attemptId: 'a3' }),
  ],
  'a child that ended twice': [
    'doubled result',
    (parts) => put(parts, 9, { at: 8, type: 'child.ended', key: `${parent}.2.0`, session: child, status: 'succeeded' }),
  ],
  'a result of an attempt that had lost its lease': ['late attempt', ({ found }) => void (found.history[4]!.attemptId = 'a1')],
  'two attempts that held a step at once': [
    'late attempt',
    (parts) => put(parts, 4, { at: 3, type: 'step.started', ...step, attemptId: 'a3' }),
  ],
  'a result of an attempt that had given its step back': [
    'late attempt',
    ({ found }) => {
      found.history[2]!.type = 'step.released'
      found.history.splice(3, 1)
      found.last.entries--
      found.history[3]!.attemptId = 'a1'
    },
  ],
  'a wrong sum': ['wrong result', (parts) => change(parts, { output: { total: 10, trace: ['0=3', '1/=4'], tokens: {} } })],
  'a success in place of what must fail': [
    'wrong result',
    ({ submitted }) => void (submitted.scenario.program = { do: 'sequence', of: [{ do: 'fail', ms: 0, how: 'permanent' }] }),
  ],
  'a session that was cancelled though nobody asked': [
    'wrong result',
    (parts) => {
      parts.found.history[9]!.type = 'session.cancelled'
      parts.submitted.streamed[9]!.type = 'session.cancelled'
      change(parts, { status: 'cancelled', output: null })
    },
  ],
  'a result that no step computed': ['ledger', ({ run }) => void run.ledger.get('s1-0')?.get('0')?.pop()],
  'a step that ran without having been taken': [
    'ledger',
    ({ run }) => void run.ledger.get('s1-0')?.get('0')?.push({ is: 'started', pid: 3, at: 5 }),
  ],
  'a session that hangs': [
    'does not end',
    (parts) => {
      parts.found.history.splice(7)
      parts.found.last.entries = 7
      parts.submitted.streamed.splice(7)
      parts.submitted.first = null
      parts.found.view.status = parts.found.last.view.status = 'paused'
    },
  ],
  'two ends': ['goes on after its end', (parts) => put(parts, 10, { at: 9, type: 'session.failed' })],
  'an attempt that wrote after the end': [
    'goes on after its end',
    (parts) => put(parts, 10, { at: 9, type: 'step.noted', ...step, attemptId: 'a1' }),
  ],
  'an end that changed': ['changed after its end', ({ found }) => void (found.last.view['progress'] = { fraction: 0.5 })],
  'an end that was first seen otherwise': ['changed after its end', ({ submitted }) => void (submitted.first!.status = 'failed')],
  'a history that grew after the end': ['goes on after its end', ({ found }) => void found.last.entries++],
  'a step that began while its session was paused': [
    'went on while paused',
    (parts) => put(parts, 7, { at: 6, type: 'timer.fired', key: `${parent}.2.1` }),
  ],
  'a parent that was told something else of its child': ['family', ({ found }) => void (found.history[8]!['status'] = 'failed')],
  'an accepted session that is not there': ['lost', ({ run }) => void run.found.splice(0, 2)],
  'a key that forgot its session': ['lost', ({ submitted }) => void (submitted.again = { status: 202, id: child })],
  'a key with two sessions': ['doubled session', ({ submitted }) => void submitted.ids.push(child)],
  'a 503 whose session was there, and was made once more': [
    'doubled session',
    ({ submitted }) => void (submitted.wasThere = { id: child }),
  ],
  'the same child twice': [
    'doubled session',
    ({ run }) => void run.found.push({ ...run.found[1]!, view: { ...run.found[1]!.view, id: '0-00000000000000000000000003' } }),
  ],
  'an event that the stream left out': ['events', ({ submitted }) => void submitted.streamed.splice(3, 1)],
  'a lease that nobody gave back': ['left over', ({ run }) => void run.leftovers.push('leases: x')],
  'an answer 500': ['answer', ({ run }) => void run.answers.push('GET x was answered with 500')],
}

describe('the verdict', () => {
  it('finds nothing where all is well', () => {
    expect(judge(allIsWell())).toEqual({ violations: [], excused: [] })
  })

  it('takes a late result while nobody else has the step', () => {
    const run = allIsWell()
    const [found] = run.found
    found!.history.splice(3, 1)
    found!.history[3]!.attemptId = 'a1'
    found!.last.entries--
    run.submitted[0]!.streamed = found!.history.map(({ type }, i) => ({ id: i + 1, type }))
    run.ledger.get('s1-0')?.get('0')?.shift()
    expect(judge(run).violations).toEqual([])
  })

  it.each(Object.entries(planted))('finds %s', (_, [rule, plant]) => {
    const run = allIsWell()
    plant({ run, submitted: run.submitted[0]!, found: run.found[0]! })
    const { violations, excused } = judge(run)
    expect(violations.map((violation) => violation.rule)).toContain(rule)
    expect(excused).toEqual([])
  })

  it('excuses a session that lost five leases in a row, by name, and no other', () => {
    const run = allIsWell()
    const { view, history, last } = run.found[0]!
    const error = { code: 'worker.poisoned', message: '' }
    Object.assign(view, { status: 'failed', error, output: null })
    Object.assign(last.view, { status: 'failed', error, output: null })
    const end = { at: 9, type: 'session.failed' as const, error }
    const lost = Array.from({ length: 5 }, (_, i) => [
      { at: i, type: 'step.started' as const, ...step, attemptId: `a${i}` },
      { at: i, type: 'step.recovered' as const, ...step, attemptId: `a${i}` },
    ]).flat()
    const judged = (events: SessionEvent[]) => {
      history.splice(1, Infinity, ...events, end)
      last.entries = history.length
      run.submitted[0]!.streamed = []
      run.submitted[0]!.first = null
      run.ledger.clear()
      run.found.splice(1)
      return judge(run)
    }
    expect(judged(lost)).toMatchObject({ violations: [], excused: [expect.stringContaining(parent)] })
    expect(judged(lost.slice(2)).violations).toMatchObject([{ rule: 'wrong result', session: parent }])
  })
})

describe('a fault', () => {
  const fault = (kind: Injected['kind'], target: string): Injected => ({
    kind,
    atMs: 0,
    victim: 0,
    forMs: 0,
    at: 1000,
    target,
    commands: 0,
  })
  const ran = (more: Partial<Ran>): Ran => ({
    session: 's',
    key: 'k',
    step: 'test.count',
    attemptId: 'a',
    worker: 'w',
    from: 900,
    to: 6500,
    end: 'step.recovered',
    ...more,
  })
  const asked = (more: Partial<Asked>): Asked => ({ api: 'api-0', from: 900, to: 1001, wasCut: true, ...more })

  it.each<[Injected['kind'], string, Partial<Ran>, boolean]>([
    ['worker.kill', 'w', {}, true],
    ['worker.kill', 'w', { worker: 'another' }, false],
    ['worker.kill', 'w', { from: 1100 }, false],
    ['worker.kill', 'w', { to: 940, end: 'step.completed' }, false],
    ['worker.kill', 'w', { to: 1020, end: 'step.completed' }, false],
    ['worker.stop', 'w', {}, true],
    ['worker.stop', 'w', { end: 'running', to: Infinity }, false],
    ['child.kill', 'w', {}, false],
    ['child.kill', 'w', { step: 'inference.denoise', end: 'step.retrying' }, true],
    ['redis.kill', 'redis', {}, true],
    ['redis.kill', 'redis', { to: 900 }, false],
    ['redis.clock', 'redis', {}, true],
    ['redis.clock', 'redis', { from: 1100 }, false],
    ['disk.full', 'disks', {}, true],
    ['disk.full', 'disks', { to: 900 }, false],
    ['worker.apart', 'w', { from: 2000, to: 3000, end: 'step.completed' }, true],
    ['worker.apart', 'w', { worker: 'another' }, false],
    ['worker.apart', 'w', { end: 'running', to: Infinity }, false],
  ])('%s of %s with %o hits: %s', (kind, target, more, hits) => {
    expect(isHit(fault(kind, target), [ran(more)], [])).toBe(hits)
  })

  it('that set Redis’ clock do not move what the histories tell', () => {
    const [from, to] = [1_800_000_000_000, 1_800_000_600_000]
    const timeOf = byMachine(from, to)
    for (const at of [from, from + 1000, to]) for (const off of [0, -clockStepMs, clockStepMs]) expect(timeOf(at + off)).toBe(at)
    expect(timeOf(from - 7_200_000)).toBe(from - 7_200_000)
    const history = [
      { type: 'step.started', at: from + 1000, key: 'k', step: 'test.step', attemptId: 'a', worker: 'w' },
      { type: 'step.completed', at: from + 3000 + clockStepMs, key: 'k', attemptId: 'a' },
    ] as const
    expect(attemptsIn('s', history, timeOf)).toMatchObject([{ from: from + 1000, to: from + 3000 }])
  })

  it('of a kind that cannot be done here are in no plan, and none of them makes a run void', () => {
    const kinds = faultKinds.filter((kind) => kind !== 'redis.clock' && !kind.startsWith('worker.'))
    const plan = planOf({ seed: 1, minutes: 2, workers: 3, apis: 2, kinds })
    expect(new Set(plan.map(({ kind }) => kind))).toEqual(new Set(kinds))
    expect(voids(plan, [], 0).join()).not.toMatch(/worker/)
  })

  it('of an API hits when a request was cut there', () => {
    expect(isHit(fault('api.kill', 'api-0'), [], [asked({})])).toBe(true)
    expect(isHit(fault('api.kill', 'api-0'), [], [asked({ wasCut: false })])).toBe(false)
    expect(isHit(fault('api.kill', 'api-0'), [], [asked({ api: 'api-1' })])).toBe(false)
    expect(isHit(fault('api.kill', 'api-0'), [], [])).toBe(false)
  })

  it('of a line hits when it met a command of a session', () => {
    expect(isHit(fault('line.lose', 'line'), [], [])).toBe(false)
    expect(isHit({ ...fault('line.lose', 'line'), commands: 1 }, [], [])).toBe(true)
  })

  it('that hits nothing makes the run void, and so does a kind of fault that never hits', () => {
    const plan = planOf({ seed: 1, minutes: 2, workers: 3, apis: 2 })
    const done = plan.map((each): Injected => ({ ...each, at: 0, target: '', commands: 0 }))
    expect(voids(plan, done, plan.length)).toEqual([])
    expect(voids(plan, [], Math.ceil(plan.length / 2))).toHaveLength(7)
    expect(voids(plan, done.slice(0, 10), 11)).toContainEqual('10 faults hit live work, 11 were asked for')
    const withoutApis = done.filter(({ kind }) => !kind.startsWith('api.'))
    expect(voids(plan, withoutApis, 0)).toEqual([expect.stringContaining('0 faults of the kind api hit live work')])
    expect(faultKinds.some((kind) => kind.startsWith('api.'))).toBe(true)
  })
})
