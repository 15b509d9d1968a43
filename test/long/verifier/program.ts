/**
 * Random programs: what a session of the verifier does, as the input of the workflow `program@1` of
 * `support/program.ts`. The same seed gives the same ones.
 */
import { nodesOf, type FailureKind, type Node } from '../../support/program.ts'
import { chance } from '../../support/proxy.ts'

/** A session as the verifier submits and drives it. All times count from the moment it was accepted, ms. */
export interface Scenario {
  /** Idempotency key, tag and name in the ledger. */
  key: string
  kind: Kind
  program: Node
  /** `once`: sent a single time, whatever comes of it; `twice`: sent to two APIs at the same time. */
  submit: 'once' | 'surely' | 'twice'
  priority: number
  /** Each is sent `times` times under one event id. */
  signals: { path: string; atMs: number; times: number; by: 'signal' | 'approval' }[]
  pauses: { atMs: number; holdMs: number }[]
  /** Places and priorities that it is given in the queue. */
  moves: { atMs: number; how: 'front' | 'back' | number }[]
  /** The whole queue is paused for so long. */
  stops: { atMs: number; holdMs: number }[]
  cancelAtMs: number | null
  /** By its own verb, or by an action over all sessions of its tag. */
  cancelBy: 'verb' | 'bulk'
  deadlineS: number | null
  /** So many with that concurrency key may be on devices at once. */
  concurrency: { key: string; limit: number } | null
}

export const kinds = ['plain', 'failing', 'signalled', 'paused', 'cancelled', 'endless', 'deadline', 'undone'] as const
export type Kind = (typeof kinds)[number]

/** As many different pictures are drawn, each again and again. */
export const pictureSeeds = 3

/** A source of chance of its own for the i-th thing of a kind: what is drawn for one does not move the others. */
export function stream(seed: number, kind: string, i: number): () => number {
  let state = seed
  for (const character of `${kind}:${i}`) state = (Math.imul(state, 31) + (character.codePointAt(0) ?? 0)) | 0
  const draw = chance(state)
  for (let warm = 0; warm < 4; warm++) draw()
  return draw
}

class Draw {
  readonly next: () => number
  constructor(next: () => number) {
    this.next = next
  }
  below(n: number): number {
    return Math.floor(this.next() * n)
  }
  between(low: number, high: number): number {
    return low + this.below(high - low + 1)
  }
  is(share: number): boolean {
    return this.next() < share
  }
  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T
  }
}

interface Room {
  /** Levels that may still open below, of any node and of child sessions. */
  depth: number
  sessions: number
  /** It may fail, and with it what holds it. */
  mayFail: boolean
  /** Signals are sent to the session that was submitted, not to its children. */
  hearsSignals: boolean
}

/** The i-th scenario of a seed. */
export function scenario(seed: number, i: number): Scenario {
  const draw = new Draw(stream(seed, 'scenario', i))
  const kind = draw.of<Kind>([
    'plain',
    'plain',
    'plain',
    'failing',
    'signalled',
    'signalled',
    'paused',
    'paused',
    'cancelled',
    'endless',
    'deadline',
    'undone',
  ])
  const room: Room = { depth: 3, sessions: 2, mayFail: kind === 'failing' || kind === 'cancelled', hearsSignals: kind === 'signalled' }
  let program = several(draw, room)
  if (kind === 'failing' && draw.is(0.7)) program = { do: 'sequence', of: [program, failure(draw)] }
  if (kind === 'signalled') program = { do: 'sequence', of: [program, { do: 'signal' }, step(draw)] }
  // It waits for a signal that nobody sends.
  if (kind === 'endless' || kind === 'deadline')
    program = { do: 'parallel', of: [program, { do: 'sequence', of: [step(draw), { do: 'signal' }] }] }
  const isGivenUp = kind === 'undone' && draw.is(0.5)
  if (kind === 'undone') program = undone(draw, isGivenUp ? { do: 'signal' } : failure(draw))
  const waits = [...nodesOf(program)].filter(({ node }) => node.do === 'signal')
  const signals =
    kind === 'signalled'
      ? waits.map(({ path }) => ({ path, atMs: draw.between(0, 3000), times: draw.of([1, 1, 2, 3]), by: 'signal' as const }))
      : []
  const pauses = kind === 'paused' || ((kind === 'signalled' || kind === 'endless') && draw.is(0.4)) ? pausesOf(draw) : []
  return {
    key: `s${seed}-${i}`,
    kind,
    program,
    submit: draw.of(['surely', 'surely', 'surely', 'twice', 'once']),
    priority: draw.below(10),
    pauses,
    ...movesOf(new Draw(stream(seed, 'moves', i))),
    ...mannersOf(new Draw(stream(seed, 'manners', i)), signals),
    cancelAtMs: kind === 'endless' || isGivenUp ? draw.between(500, 6000) : kind === 'cancelled' ? draw.between(0, 2500) : null,
    deadlineS: kind === 'deadline' ? draw.between(2, 8) : null,
  }
}

function movesOf(draw: Draw): Pick<Scenario, 'moves' | 'stops'> {
  const how = (): Scenario['moves'][number]['how'] => draw.of(['front', 'back', draw.below(9), 9])
  const moves = Array.from({ length: draw.of([0, 0, 0, 1, 2]) }, () => ({ atMs: draw.between(0, 2500), how: how() }))
  const stops = draw.is(0.04) ? [{ atMs: draw.between(0, 2000), holdMs: draw.between(50, 1200) }] : []
  return { moves, stops }
}

/** Limits that sessions share, by concurrency key. */
const shared = [
  { key: 'one', limit: 1 },
  { key: 'two', limit: 2 },
]

function mannersOf(draw: Draw, signals: Scenario['signals']): Pick<Scenario, 'signals' | 'cancelBy' | 'concurrency'> {
  return {
    signals: signals.map((signal) => ({ ...signal, by: draw.is(0.4) ? 'approval' : 'signal' })),
    cancelBy: draw.is(0.4) ? 'bulk' : 'verb',
    concurrency: draw.is(0.3) ? draw.of(shared) : null,
  }
}

/** Counts, some of them at once, and then what keeps them from counting: each is to be undone. */
function undone(draw: Draw, last: Node): Node {
  const count = (): Node => ({ ...step(draw), lane: 'host' }) as Node
  const counts = Array.from({ length: draw.between(2, 4) }, count)
  return { do: 'sequence', of: [...(draw.is(0.5) ? counts : [{ do: 'parallel' as const, of: counts }]), last] }
}

function pausesOf(draw: Draw): Scenario['pauses'] {
  const first = { atMs: draw.between(0, 1500), holdMs: draw.between(0, 2500) }
  return draw.is(0.3) ? [first, { atMs: draw.between(0, 800), holdMs: draw.between(0, 500) }] : [first]
}

/**
 * Two to four parts, in sequence or at once. Of parts at once only one may fail, or who is first would decide how all
 * of it fails.
 */
function several(draw: Draw, room: Room): Node {
  const inner = { ...room, depth: room.depth - 1 }
  const parts = draw.between(2, room.depth >= 3 ? 4 : 3)
  if (draw.is(0.55)) return { do: 'sequence', of: Array.from({ length: parts }, () => node(draw, inner)) }
  const unlucky = draw.below(parts)
  return { do: 'parallel', of: Array.from({ length: parts }, (_, i) => node(draw, { ...inner, mayFail: room.mayFail && i === unlucky })) }
}

function node(draw: Draw, room: Room): Node {
  const what = draw.next()
  if (room.depth <= 0 || what < 0.36) return room.mayFail && draw.is(0.12) ? failure(draw) : step(draw)
  if (what < 0.44) return { do: 'timer', ms: draw.between(20, 1500) }
  if (what < 0.5) return room.hearsSignals ? { do: 'signal' } : step(draw)
  if (what < 0.62 && room.sessions > 0) return { do: 'picture', seed: draw.below(pictureSeeds) }
  if (what < 0.72 && room.sessions > 0) {
    const body = several(draw, { ...room, depth: room.depth - 1, sessions: room.sessions - 1, hearsSignals: false })
    return { do: 'child', body }
  }
  if (what < 0.8)
    return { do: 'try', body: draw.is(0.6) ? failure(draw) : several(draw, { ...room, depth: room.depth - 1, mayFail: true }) }
  if (what < 0.86) {
    // Longer than anybody waits, or shorter: given up in the middle, or not at all.
    const patience = draw.between(50, 1200)
    const long: Node = { ...step(draw), ms: draw.of([50, 20_000]), isDeaf: false } as Node
    const body: Node = room.sessions > 0 && draw.is(0.5) ? { do: 'child', body: { do: 'sequence', of: [step(draw), long] } } : long
    return { do: 'race', ms: patience, body }
  }
  return several(draw, room)
}

function step(draw: Draw): Node {
  const flaky = draw.is(0.12)
    ? draw.is(0.5)
      ? { how: 'transient' as const, times: draw.between(1, 2) }
      : { how: 'resource' as const, times: draw.between(1, 3) }
    : null
  return {
    do: 'step',
    n: draw.between(1, 1000),
    ms: draw.of([0, 5, 30, 100, 250, 600, 1200, 2500]),
    lane: draw.is(0.15) ? 'gpu' : 'host',
    isDeaf: draw.is(0.7),
    flaky,
  }
}

function failure(draw: Draw): Node {
  return {
    do: 'fail',
    ms: draw.of([0, 50, 300]),
    how: draw.of<FailureKind>(['permanent', 'permanent', 'permanent', 'transient', 'resource']),
  }
}
