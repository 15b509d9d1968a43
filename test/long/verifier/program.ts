/**
 * Random programs: what a session of the verifier does, as data. A program is the input of the workflow `program@1` (see `workflow.ts`), so
 * every process has it and the same seed gives the same ones.
 *
 * | node | does |
 * | --- | --- |
 * | `step` | counts `n` on the host or the device lane, after failing `flaky.times` times |
 * | `fail` | a step that fails for good |
 * | `timer` | waits |
 * | `signal` | waits for the signal that names it |
 * | `child` | the body as a session of its own |
 * | `picture` | a child session `image-generation@1` |
 * | `sequence`, `parallel` | one after another; all at once, given up when one fails |
 * | `try` | the body, whose failure is its result |
 * | `race` | the body, given up after `ms`: its result counts for nothing either way, so the program's is known beforehand |
 */
import { z } from 'zod'
import { chance } from '../../support/proxy.ts'

const ms = z.int().min(0).max(60_000)

export type Node =
  | {
      do: 'step'
      n: number
      ms: number
      lane: 'host' | 'gpu'
      isDeaf: boolean
      flaky: { how: 'transient' | 'resource'; times: number } | null
    }
  | { do: 'fail'; ms: number; how: FailureKind }
  | { do: 'timer'; ms: number }
  | { do: 'signal' }
  | { do: 'child'; body: Node }
  | { do: 'picture'; seed: number }
  | { do: 'sequence'; of: Node[] }
  | { do: 'parallel'; of: Node[] }
  | { do: 'try'; body: Node }
  | { do: 'race'; ms: number; body: Node }

export type FailureKind = 'permanent' | 'transient' | 'resource'

export const Node: z.ZodType<Node> = z.lazy(() =>
  z.discriminatedUnion('do', [
    z.strictObject({
      do: z.literal('step'),
      n: z.int(),
      ms,
      lane: z.enum(['host', 'gpu']),
      /** It does not hear that it should stop, and delivers whatever happens meanwhile. */
      isDeaf: z.boolean(),
      flaky: z.strictObject({ how: z.enum(['transient', 'resource']), times: z.int() }).nullable(),
    }),
    z.strictObject({ do: z.literal('fail'), ms, how: z.enum(['permanent', 'transient', 'resource']) }),
    z.strictObject({ do: z.literal('timer'), ms }),
    z.strictObject({ do: z.literal('signal') }),
    z.strictObject({ do: z.literal('child'), body: Node }),
    z.strictObject({ do: z.literal('picture'), seed: z.int() }),
    z.strictObject({ do: z.literal('sequence'), of: z.array(Node) }),
    z.strictObject({ do: z.literal('parallel'), of: z.array(Node) }),
    z.strictObject({ do: z.literal('try'), body: Node }),
    z.strictObject({ do: z.literal('race'), ms, body: Node }),
  ]),
)

/** Where a node stands in its program: `0.2`, inside a child session `0.2/1`. The program itself is ''. */
export const below = (path: string, i: number): string => (path === '' || path.endsWith('/') ? `${path}${i}` : `${path}.${i}`)
export const insideChild = (path: string): string => `${path}/`

/** Every node with its path. */
export function* nodesOf(node: Node, path = ''): Generator<{ node: Node; path: string }> {
  yield { node, path }
  if (node.do === 'sequence' || node.do === 'parallel') for (const [i, part] of node.of.entries()) yield* nodesOf(part, below(path, i))
  else if (node.do === 'child') yield* nodesOf(node.body, insideChild(path))
  else if (node.do === 'try' || node.do === 'race') yield* nodesOf(node.body, below(path, 0))
}

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
  signals: { path: string; atMs: number; times: number }[]
  pauses: { atMs: number; holdMs: number }[]
  cancelAtMs: number | null
  deadlineS: number | null
}

export const kinds = ['plain', 'failing', 'signalled', 'paused', 'cancelled', 'endless', 'deadline'] as const
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
  ])
  const room: Room = { depth: 3, sessions: 2, mayFail: kind === 'failing' || kind === 'cancelled', hearsSignals: kind === 'signalled' }
  let program = several(draw, room)
  if (kind === 'failing' && draw.is(0.7)) program = { do: 'sequence', of: [program, failure(draw)] }
  if (kind === 'signalled') program = { do: 'sequence', of: [program, { do: 'signal' }, step(draw)] }
  // It waits for a signal that nobody sends.
  if (kind === 'endless' || kind === 'deadline')
    program = { do: 'parallel', of: [program, { do: 'sequence', of: [step(draw), { do: 'signal' }] }] }
  const waits = [...nodesOf(program)].filter(({ node }) => node.do === 'signal')
  const signals = kind === 'signalled' ? waits.map(({ path }) => ({ path, atMs: draw.between(0, 3000), times: draw.of([1, 1, 2, 3]) })) : []
  const pauses = kind === 'paused' || ((kind === 'signalled' || kind === 'endless') && draw.is(0.4)) ? pausesOf(draw) : []
  return {
    key: `s${seed}-${i}`,
    kind,
    program,
    submit: draw.of(['surely', 'surely', 'surely', 'twice', 'once']),
    priority: draw.below(10),
    signals,
    pauses,
    cancelAtMs: kind === 'endless' ? draw.between(500, 6000) : kind === 'cancelled' ? draw.between(0, 2500) : null,
    deadlineS: kind === 'deadline' ? draw.between(2, 8) : null,
  }
}

function pausesOf(draw: Draw): Scenario['pauses'] {
  const first = { atMs: draw.between(0, 1500), holdMs: draw.between(0, 2500) }
  return draw.is(0.3) ? [first, { atMs: draw.between(0, 800), holdMs: draw.between(0, 500) }] : [first]
}

/** Two to four parts, in sequence or at once. Of parts at once only one may fail, or who is first would decide how all of it fails. */
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
