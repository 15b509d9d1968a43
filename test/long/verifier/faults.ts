/**
 * Faults: the plan that follows from a seed, and which of them hit live work. That is read afterwards, from the
 * histories of the sessions and the requests of their clients: a kill of something idle shows nothing.
 *
 * | fault | does | hits when |
 * | --- | --- | --- |
 * | `worker.kill` | SIGKILL | an attempt ran on it, and its lease ended without it |
 * | `worker.stop` | SIGSTOP for longer than a lease, then SIGCONT | an attempt ran on it |
 * | `worker.cut` | its line to Redis breaks at every command, for longer than a lease | an attempt ran on it |
 * | `child.kill` | SIGKILL to its Python child | a picture was being drawn by it |
 * | `child.stop` | SIGSTOP to its Python child, for good: its worker has to replace it | a picture was being drawn by it |
 * | `api.kill` | SIGKILL | a request was in flight there, and was cut |
 * | `api.stop` | SIGSTOP, then SIGCONT | a request was in flight there |
 * | `redis.kill` | SIGKILL, started again on the same files | an attempt ran somewhere |
 * | `redis.stop` | SIGSTOP, then SIGCONT | an attempt ran somewhere |
 * | `redis.clock` | its wall clock is set by an hour, back or ahead, and right again | an attempt ran somewhere |
 * | `disk.full` | the disks of Redis' files and of the data are full for some seconds | an attempt ran somewhere |
 * | `worker.apart` | SIGKILL; it comes back in a PID namespace of its own, and after a while as before | an attempt ran on it there |
 * | `line.lose` | some writes of every process are executed and their answers lost | a lost one was of a session |
 * | `line.cut` | some commands of every process find the line cut | a cut one was of a session |
 *
 * A kind that this machine does not allow is in no plan.
 */
import type { SessionEvent } from '../../../src/engine/session.ts'
import { ended, type Status } from '../../../src/engine/session.ts'
import { stream } from './program.ts'

export const faultKinds = [
  'worker.kill',
  'worker.stop',
  'worker.cut',
  'child.kill',
  'child.stop',
  'api.kill',
  'api.stop',
  'redis.kill',
  'redis.stop',
  'redis.clock',
  'disk.full',
  'worker.apart',
  'line.lose',
  'line.cut',
] as const
export type FaultKind = (typeof faultKinds)[number]

export interface PlannedFault {
  /** Since the start, ms. */
  atMs: number
  kind: FaultKind
  /** Which of the processes of its kind. */
  victim: number
  /** How long it is stopped or cut, or stays down, ms. */
  forMs: number
}

export interface PlanOptions {
  seed: number
  minutes: number
  workers: number
  apis: number
  /** Those that can be done here. */
  kinds?: readonly FaultKind[]
}

/** Played through in a new order each time, so that a short run too has every kind. */
const deck: readonly FaultKind[] = [...faultKinds, 'worker.kill', 'worker.kill', 'child.kill', 'api.kill']

/** Longer than a lease of 5 s: others take over meanwhile. */
const beyondLease = [6000, 8000] as const
const durations: Record<FaultKind, readonly [number, number]> = {
  'worker.kill': [0, 1500],
  'worker.stop': beyondLease,
  'worker.cut': beyondLease,
  'child.kill': [0, 0],
  'child.stop': [0, 0],
  'api.kill': [0, 1000],
  'api.stop': [1000, 4000],
  'redis.kill': [0, 2000],
  'redis.stop': [500, 6000],
  'redis.clock': [3000, 7000],
  'disk.full': [2000, 5000],
  'worker.apart': [8000, 12_000],
  'line.lose': [1000, 2000],
  'line.cut': [1000, 2000],
}

/** Between one fault and the next. */
const gapMs = [2000, 4500] as const
/** Before the first: there must be something to hit. */
const leadMs = 2500

export function planOf({ seed, minutes, workers, apis, kinds = faultKinds }: PlanOptions): PlannedFault[] {
  const draw = stream(seed, 'faults', 0)
  const between = ([low, high]: readonly [number, number]): number => Math.round(low + draw() * (high - low))
  const plan: PlannedFault[] = []
  let left: FaultKind[] = []
  for (let atMs = leadMs; atMs < minutes * 60_000; atMs += between(gapMs)) {
    if (left.length === 0) left = deck.filter((kind) => kinds.includes(kind))
    const [kind] = left.splice(Math.floor(draw() * left.length), 1)
    if (!kind) break
    const victim = Math.floor(draw() * (kind.startsWith('api.') ? apis : workers))
    plan.push({ atMs, kind, victim, forMs: between(durations[kind]) })
  }
  return plan
}

/** A fault as it was done. */
export interface Injected extends PlannedFault {
  /** By the machine's clock, ms; Redis' is the same but while a fault has set it. */
  at: number
  /** Id of the worker that it was done to, or name of the API. */
  target: string
  /** Commands of sessions that a broken line hit. */
  commands: number
}

/** A request of the verifier to an API. */
export interface Asked {
  api: string
  from: number
  to: number
  /** The connection broke, or nothing came in time. */
  wasCut: boolean
}

/** One attempt, as its session's history tells of it. */
export interface Ran {
  session: string
  key: string
  step: string
  attemptId: string
  worker: string
  from: number
  /** Infinity while it runs. */
  to: number
  end: SessionEvent['type'] | 'running'
}

const attemptEnds = new Set<SessionEvent['type']>(['step.completed', 'step.failed', 'step.retrying', 'step.released', 'step.recovered'])

/** By how much a fault sets Redis' clock, back or ahead, ms. */
export const clockStepMs = 3_600_000

/** A time of Redis' clock by the machine's: of a run from `from` to `to`, shorter than an hour, there is one only. */
export const byMachine =
  (from: number, to: number) =>
  (at: number): number =>
    [at, at - clockStepMs, at + clockStepMs].find((time) => time >= from - clockSlackMs && time <= to + clockSlackMs) ?? at

export function attemptsIn(session: string, history: readonly SessionEvent[], timeOf = (at: number): number => at): Ran[] {
  const all: Ran[] = []
  const running = new Map<string, Ran>()
  for (const event of history) {
    const { type, key = '', step = '', attemptId = '', worker = '' } = event
    const at = timeOf(event.at)
    if (type === 'step.started') {
      const ran: Ran = { session, key, step, attemptId, worker, from: at, to: Infinity, end: 'running' }
      all.push(ran)
      running.set(key, ran)
    } else if (attemptEnds.has(type)) {
      const ran = running.get(key)
      if (ran) [ran.to, ran.end] = [at, type]
      running.delete(key)
    } else if (ended.has(type.replace('session.', '') as Status)) {
      for (const ran of running.values()) [ran.to, ran.end] = [at, type]
    }
  }
  return all
}

/** Clocks of two processes of one machine, and what a command needs on its way, ms. */
const slackMs = 50
const clockSlackMs = 60_000

export function isHit(fault: Injected, attempts: readonly Ran[], requests: readonly Asked[]): boolean {
  const spans = ({ from, to }: { from: number; to: number }): boolean => from <= fault.at && to >= fault.at - slackMs
  // Of one whose step was closed by the machine nobody wrote down when it stopped.
  const ran = attempts.filter((attempt) => attempt.end.startsWith('step.') && spans(attempt))
  const onTarget = ran.filter(({ worker }) => worker === fault.target)
  switch (fault.kind) {
    case 'worker.kill':
      return onTarget.some(({ end }) => end === 'step.recovered')
    case 'worker.stop':
    case 'worker.cut':
      return onTarget.length > 0
    case 'child.kill':
    case 'child.stop':
      return onTarget.some(({ step }) => step.startsWith('inference.'))
    case 'api.kill':
      return requests.some((asked) => asked.api === fault.target && spans(asked) && asked.wasCut)
    case 'api.stop':
      return requests.some((asked) => asked.api === fault.target && spans(asked))
    case 'redis.kill':
    case 'redis.stop':
    case 'redis.clock':
    case 'disk.full':
      return ran.length > 0
    case 'worker.apart':
      return attempts.some(({ worker, end }) => worker === fault.target && end.startsWith('step.'))
    case 'line.lose':
    case 'line.cut':
      return fault.commands > 0
  }
}

export interface Tally {
  planned: number
  hit: number
}

export const groupOf = (kind: FaultKind): string => kind.split('.')[0] ?? ''

export function tally(plan: readonly PlannedFault[], hits: readonly Injected[]): Map<FaultKind, Tally> {
  const count = (kind: FaultKind, faults: readonly PlannedFault[]): number => faults.filter((fault) => fault.kind === kind).length
  return new Map(faultKinds.map((kind) => [kind, { planned: count(kind, plan), hit: count(kind, hits) }]))
}

/**
 * Why a run shows nothing; empty when it shows something: of all planned faults at least `asked` must have hit live
 * work, and of those of each group (workers, children, APIs, Redis, the line) a third.
 */
export function voids(plan: readonly PlannedFault[], hits: readonly Injected[], asked: number): string[] {
  const found: string[] = []
  if (hits.length < asked) found.push(`${hits.length} faults hit live work, ${asked} were asked for`)
  for (const group of new Set(faultKinds.map(groupOf))) {
    const least = Math.ceil(plan.filter(({ kind }) => groupOf(kind) === group).length / 3)
    const hit = hits.filter(({ kind }) => groupOf(kind) === group).length
    if (hit < least) found.push(`${hit} faults of the kind ${group} hit live work, at least ${least} must`)
  }
  return found
}
