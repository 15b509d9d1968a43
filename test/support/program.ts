/**
 * The workflow `program`, whose input says what a session does, as data: the tests and the verifier write programs, and
 * the APIs and workers of their farms load this file as a `module`. The machine holds what has happened; which effects
 * should be open follows from that alone.
 *
 * | node | does |
 * | --- | --- |
 * | `step` | counts `n` on the host or the device lane, after failing `flaky.times` times |
 * | `fail` | a step that fails for good |
 * | `run` | a step of any operation in `runnable`, with an input of its own |
 * | `timer` | waits |
 * | `signal` | waits for the signal whose data has its `path`, or for the next one whose data has none |
 * | `child` | the body as a session of its own |
 * | `picture` | a child session `image-generation@1` |
 * | `sequence`, `parallel` | one after another; all at once, given up when one fails |
 * | `try` | the body, whose failure is its result |
 * | `race` | the body, given up after `ms`; its result counts for nothing, so the program's is known beforehand |
 */
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { enqueueActions, type AnyEventObject } from 'xstate'
import { memory } from '../../src/domains/memory/index.ts'
import { operation, type OperationTable, type Tools } from '../../src/domains/operation.ts'
import { Target } from '../../src/domains/values.ts'
import { DarkroomError, defineErrors } from '../../src/errors.ts'
import { session } from '../../src/workflows/child-session.ts'
import { child, defineWorkflow, imageGeneration, setup, steps, z, type Catalogue, type Workflow } from '../../src/workflows/index.ts'
import { step as stepOf } from '../../src/workflows/step.ts'

// ---- programs ----

const ms = z.int().min(0).max(60_000)

/** What a step does besides counting; each for tests that look at it. */
const Manner = z.strictObject({
  /** In the ledger and the results, in place of its path. */
  name: z.string().optional(),
  /** It goes on only when there is no file `<name>.hold` in its ledger. */
  holds: z.boolean().optional(),
  /** It keeps its whole process from doing anything else, in workers whose environment says `SCRIPT_WORKER=<on>`. */
  blocks: z.strictObject({ ms: z.int(), on: z.string() }).optional(),
  /** So many of its runs take their worker with them. */
  kills: z.int().optional(),
  /** It tells of its progress, writes a note and keeps an artifact. */
  tells: z.boolean().optional(),
})
type Manner = z.infer<typeof Manner>

const runnable = ['memory.allocate', 'model.resolve', 'test.copy', 'test.linger', 'test.nowhere'] as const

export type FailureKind = 'permanent' | 'transient' | 'resource'

export type Node =
  | ({
      do: 'step'
      n: number
      ms: number
      lane: 'host' | 'gpu'
      isDeaf: boolean
      flaky: { how: 'transient' | 'resource'; times: number } | null
    } & Manner)
  | { do: 'fail'; ms: number; how: FailureKind }
  | { do: 'run'; operation: (typeof runnable)[number]; input: Record<string, unknown> }
  | { do: 'timer'; ms: number }
  | { do: 'signal' }
  | { do: 'child'; body: Node }
  | { do: 'picture'; seed: number }
  | { do: 'sequence'; of: Node[] }
  | { do: 'parallel'; of: Node[] }
  | { do: 'try'; body: Node }
  | { do: 'race'; ms: number; body: Node }

const Node: z.ZodType<Node> = z.lazy(() =>
  z.discriminatedUnion('do', [
    Manner.extend({
      do: z.literal('step'),
      n: z.int(),
      ms,
      lane: z.enum(['host', 'gpu']),
      /** It does not hear that it should stop, and delivers whatever happens meanwhile. */
      isDeaf: z.boolean(),
      flaky: z.strictObject({ how: z.enum(['transient', 'resource']), times: z.int() }).nullable(),
    }),
    z.strictObject({ do: z.literal('fail'), ms, how: z.enum(['permanent', 'transient', 'resource']) }),
    /** An input's `device` and `model`, by name, become what the operation takes when the session is submitted. */
    z.strictObject({ do: z.literal('run'), operation: z.enum(runnable), input: z.record(z.string(), z.unknown()) }),
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

/** A step on the host that counts 1 at once, but for what is said otherwise. */
export const step = (more: Partial<Extract<Node, { do: 'step' }>> = {}): Node => ({
  do: 'step',
  n: 1,
  ms: 0,
  lane: 'host',
  isDeaf: true,
  flaky: null,
  ...more,
})

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

// ---- the machine ----

const Input = z.strictObject({
  /** Folder outside Redis, in which every step notes what it does, and the name of this session's own folder there. */
  ledger: z.string(),
  key: z.string(),
  path: z.string().default(''),
  program: Node,
})
type Input = z.infer<typeof Input>

const Work = Manner.omit({ name: true }).extend({
  key: z.string(),
  ledger: z.string(),
  path: z.string(),
  /** What it says begins so. */
  mark: z.string(),
  n: z.int(),
  ms: z.int(),
  isDeaf: z.boolean(),
  /** Fails so often before it counts; null: always. */
  failures: z.int().nullable(),
  how: z.enum(['permanent', 'transient', 'resource']),
})
type Work = z.infer<typeof Work>
const Counted = z.strictObject({ n: z.int(), token: z.string(), said: z.string() })

export interface Output {
  total: number
  trace: string[]
  /** The token of each step whose result counts, by name or path. */
  tokens: Record<string, string>
  /** What came of each node, in the program's order: a step's name, a signal's data, all that a child said. */
  said: unknown[]
}

/** As errors cross the wire. */
interface Failure {
  code: string
}

/** What has happened to a program: how its effects ended, by path, and the data of each signal that was heard. */
interface Seen {
  ends: Record<string, { output: unknown } | { error: Failure }>
  heard: Record<string, unknown[]>
}

type Effect =
  | { is: 'step'; path: string; source: 'test.count' | 'test.device'; work: Omit<Work, 'key' | 'ledger' | 'mark'> }
  | { is: 'run'; path: string; source: (typeof runnable)[number]; input: Record<string, unknown> }
  | { is: 'timer'; path: string; ms: number }
  | { is: 'signal'; path: string }
  | { is: 'child'; path: string; body: Node }
  | { is: 'picture'; path: string; seed: number }

type Look = { is: 'open'; effects: Effect[] } | ({ is: 'done' } & Output) | { is: 'failed'; error: Failure }

const open = (...effects: Effect[]): Look => ({ is: 'open', effects })
const done = (total: number, trace: string[], said: unknown[] = [], tokens: Record<string, string> = {}): Look => ({
  is: 'done',
  total,
  trace,
  tokens,
  said,
})

/** Where a program stands: done, failed, or what must be open now. */
function look(node: Node, path: string, seen: Seen): Look {
  const end = seen.ends[path]
  if (end && 'error' in end) return { is: 'failed', error: end.error }
  switch (node.do) {
    case 'step': {
      const { do: _, lane, flaky, name = path, ...rest } = node
      if (end) {
        const { n, token, said } = end.output as z.infer<typeof Counted>
        return done(n, [`${path}=${n}`], [said], { [name]: token })
      }
      const work = { ...rest, path: name, failures: flaky?.times ?? 0, how: flaky?.how ?? 'permanent' } as const
      return open({ is: 'step', path, source: lane === 'gpu' ? 'test.device' : 'test.count', work })
    }
    case 'fail':
      return end
        ? done(0, [`${path}=0`])
        : open({ is: 'step', path, source: 'test.count', work: { path, n: 0, ms: node.ms, isDeaf: true, failures: null, how: node.how } })
    case 'run':
      return end ? done(0, [path], [end.output]) : open({ is: 'run', path, source: node.operation, input: node.input })
    case 'timer':
      return end ? done(0, [`${path}+${node.ms}`], ['waited']) : open({ is: 'timer', path, ms: node.ms })
    case 'signal': {
      const heard = seen.heard[path]
      return heard ? done(0, [`${path}~${heard.length}`], [heard[0]]) : open({ is: 'signal', path })
    }
    case 'child': {
      if (!end) return open({ is: 'child', path, body: node.body })
      const output = end.output as Output
      return { is: 'done', ...output, said: [output.said] }
    }
    case 'picture': {
      if (!end) return open({ is: 'picture', path, seed: node.seed })
      return done(0, [`${path}#${(end.output as { images: { sha256: string }[] }).images[0]?.sha256}`], [end.output])
    }
    case 'try': {
      const body = look(node.body, below(path, 0), seen)
      return body.is === 'failed' ? done(0, [`${path}!${body.error.code}`], ['failed']) : body
    }
    case 'race': {
      const body = look(node.body, below(path, 0), seen)
      if (end || body.is === 'done') return done(0, [`${path}?`])
      return body.is === 'failed' ? body : open({ is: 'timer', path, ms: node.ms }, ...body.effects)
    }
    case 'sequence': {
      const parts: Look[] = []
      for (const [i, part] of node.of.entries()) {
        const at = look(part, below(path, i), seen)
        if (at.is !== 'done') return at
        parts.push(at)
      }
      return together(parts)
    }
    case 'parallel':
      return together(node.of.map((part, i) => look(part, below(path, i), seen)))
  }
}

function together(parts: Look[]): Look {
  const failed = parts.find((part) => part.is === 'failed')
  if (failed) return failed
  if (parts.some((part) => part.is === 'open')) return open(...parts.flatMap((part) => (part.is === 'open' ? part.effects : [])))
  const all = parts as (Output & { is: 'done' })[]
  return done(
    all.reduce((sum, { total }) => sum + total, 0),
    all.flatMap(({ trace }) => trace),
    all.flatMap(({ said }) => said),
    Object.assign({}, ...all.map(({ tokens }) => tokens)) as Record<string, string>,
  )
}

interface Context extends Seen {
  input: Input
  /** Kinds of the open effects, by path. */
  open: Record<string, Effect['is']>
  now: Look['is']
}

/** XState's ids of effects: a path may be empty. */
const idOf = (path: string): string => `at:${path}`
const pathOf = (id: unknown): string => String(id).slice('at:'.length)

/** What an event adds to what has happened. */
function after({ ends, heard, open: before }: Context, event: AnyEventObject): Seen {
  const { type } = event
  if (type === 'time') return { ends: { ...ends, [event['path'] as string]: { output: null } }, heard }
  if (type === 'signal.go') {
    const data: unknown = event['data']
    const listening = Object.keys(before).find((path) => before[path] === 'signal')
    const path = typeof data === 'object' && data !== null && 'path' in data ? String(data.path) : listening
    return path === undefined ? { ends, heard } : { ends, heard: { ...heard, [path]: [...(heard[path] ?? []), data] } }
  }
  const path = pathOf(event['actorId'])
  if (type.startsWith('xstate.done.actor.')) return { ends: { ...ends, [path]: { output: event['output'] } }, heard }
  if (type.startsWith('xstate.error.actor.')) return { ends: { ...ends, [path]: { error: event['error'] as Failure } }, heard }
  return { ends, heard }
}

/** Takes the event in, then opens what should be open and closes what should not. */
const advance = (mark: string) =>
  enqueueActions(({ context, event, enqueue: queue }) => {
    // Effects are opened by name, as data: XState's types would have every one written out.
    const enqueue = queue as unknown as {
      assign(values: Partial<Context>): void
      raise(event: AnyEventObject, options: { id: string; delay: number }): void
      spawnChild(source: string, options: { id: string; input: unknown }): void
      cancel(id: string): void
      stopChild(id: string): void
    }
    const before = context as Context
    const { key, ledger, path: root, program } = before.input
    const seen = after(before, event)
    const at = look(program, root, seen)
    const wanted = new Map((at.is === 'open' ? at.effects : []).map((effect) => [effect.path, effect]))
    for (const [path, is] of Object.entries(before.open)) {
      if (wanted.has(path) || path in seen.ends) continue
      if (is === 'timer') enqueue.cancel(idOf(path))
      else if (is !== 'signal') enqueue.stopChild(idOf(path))
    }
    for (const [path, effect] of wanted) {
      if (path in before.open) continue
      const id = idOf(path)
      if (effect.is === 'timer') enqueue.raise({ type: 'time', path }, { id, delay: effect.ms })
      if (effect.is === 'step') enqueue.spawnChild(effect.source, { id, input: { ...effect.work, key, ledger, mark } })
      if (effect.is === 'run') enqueue.spawnChild(effect.source, { id, input: effect.input })
      if (effect.is === 'child')
        enqueue.spawnChild('program@1', { id, input: { key, ledger, path: insideChild(path), program: effect.body } })
      if (effect.is === 'picture') enqueue.spawnChild('image-generation@1', { id, input: picture(effect.seed) })
    }
    enqueue.assign({ ...seen, open: Object.fromEntries([...wanted].map(([path, { is }]) => [path, is])), now: at.is })
  })

/** The request of a picture, as `picture` nodes and the undisturbed run ask for it. */
export const picture = (seed: number): Record<string, unknown> => ({ prompt: 'a red circle', seed, steps: 30 })

/**
 * The signal `stop` ends a program wherever it is. A version marks what its steps say, so that the output shows which
 * machine ran.
 */
const machine = (mark: string) =>
  setup({
    types: { context: {} as Context, input: {} as Input, output: {} as Output | { error: unknown }, events: {} as AnyEventObject },
    actors: {
      'test.count': stepOf<Work, z.infer<typeof Counted>>(),
      'test.device': stepOf<Work, z.infer<typeof Counted>>(),
      'test.copy': stepOf<unknown, unknown>(),
      'test.linger': stepOf<unknown, unknown>(),
      'test.nowhere': stepOf<unknown, unknown>(),
      ...steps('memory.allocate', 'model.resolve'),
      ...child(imageGeneration),
      'program@1': session<Input, Output>(),
    },
    actions: { advance: advance(mark) as never },
  }).createMachine({
    id: 'program',
    context: ({ input }) => ({ input, ends: {}, heard: {}, open: {}, now: 'open' }),
    initial: 'running',
    states: {
      running: {
        entry: 'advance',
        on: {
          'xstate.done.actor.*': { actions: 'advance' },
          'xstate.error.actor.*': { actions: 'advance' },
          time: { actions: 'advance' },
          'signal.go': { actions: 'advance' },
          'signal.stop': 'done',
        },
        always: [
          { guard: ({ context }) => context.now === 'done', target: 'done' },
          { guard: ({ context }) => context.now === 'failed', target: 'failed' },
        ],
      },
      done: { type: 'final' },
      failed: { type: 'final', tags: 'failed' },
    },
    output: ({ context: { input, ends, heard } }) => {
      const at = look(input.program, input.path, { ends, heard })
      if (at.is === 'failed') return { error: at.error }
      const { total, trace, tokens, said } = at.is === 'done' ? at : { total: 0, trace: [], tokens: {}, said: [] }
      return { total, trace, tokens, said }
    },
  })

/** The program with what its steps are to have looked up; a child looks up its own. */
async function resolved(node: Node, catalogue: Catalogue): Promise<Node> {
  if (node.do === 'sequence' || node.do === 'parallel')
    return { ...node, of: await Promise.all(node.of.map((part) => resolved(part, catalogue))) }
  if (node.do === 'try' || node.do === 'race') return { ...node, body: await resolved(node.body, catalogue) }
  if (node.do !== 'run') return node
  const { device, model, ...input } = node.input
  if (typeof device === 'string') input['target'] = await catalogue.device(device, 'input.device')
  if (typeof model === 'string') {
    const { id, bodyHash } = await catalogue.model(model)
    input['model'] = { id, bodyHash }
  }
  return { ...node, input }
}

const of = {
  input: Input,
  resolveInput: async (input: Input, catalogue: Catalogue) => ({ ...input, program: await resolved(input.program, catalogue) }),
}

const program = <const Version extends number>(version: Version, mark = '') =>
  defineWorkflow({ name: 'program', version, ...of, machine: machine(mark) })

/** In the ledger, what undoes the step of that path. */
export const undoOf = (path: string): string => `undo ${path}`

/** The same, with a count of its own that undoes each count of the host lane. */
const undoable = {
  ...defineWorkflow({ name: 'undoable', ...of, machine: machine('') }),
  undo: {
    'test.count': ({ input }: { input: unknown }) => ({
      step: 'test.count',
      input: { ...(input as Work), path: undoOf((input as Work).path), ms: 0, failures: 0 },
    }),
  },
}

const deployed = (data: string): string => join(data, 'deployed')

/** From now on processes that start with this data folder have the next release, with version 2 of the workflow. */
export const deploy = (data: string): void => writeFileSync(deployed(data), '')

const isDeployed = existsSync(deployed(process.env['DARKROOM_DATA'] ?? ''))
export const workflows: Workflow[] = isDeployed ? [program(1), program(2, 'v2:'), undoable] : [program(1), undoable]

// ---- the ledger ----

/** One line of a step's file in the ledger. */
export interface Line {
  is: 'started' | 'failed' | 'counted'
  token?: string
  pid: number
  at: number
}

/** A step's own file: it must be told apart from all others, and read again by the next attempt. */
const ledgerFile = (folder: string, path: string): string => join(folder, `at ${path.replaceAll('/', ' in ')}`)

/** A file that a step which `holds` waits to go. */
export const holdFile = (folder: string, name: string): string => join(folder, `${name}.hold`)

/** What stands behind the last line end is just being written, by another process. */
const linesIn = (file: string): Line[] =>
  readFileSync(file, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Line)

/** What the steps in a session's folder have noted, by name or path. */
export function readLedger(folder: string): Map<string, Line[]> {
  const files = existsSync(folder) ? readdirSync(folder).filter((file) => file.startsWith('at ')) : []
  return new Map(files.map((file) => [file.slice('at '.length).replaceAll(' in ', '/'), linesIn(join(folder, file))]))
}

// ---- the steps ----

defineErrors('test', {
  flaky: { class: 'transient', remedy: 'The program asks for it.' },
  scarce: { class: 'resource', remedy: 'The program asks for it.' },
  refused: { class: 'permanent', remedy: 'The program asks for it.' },
})
const codes = { transient: 'test.flaky', resource: 'test.scarce', permanent: 'test.refused' } as const

/** Keeps this process from doing anything. */
const block = (forMs: number): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, forMs)

async function count(work: Work, tools: Tools): Promise<z.infer<typeof Counted>> {
  const { key, ledger, path, mark, n, failures } = work
  const folder = join(ledger, key)
  const file = ledgerFile(folder, path)
  mkdirSync(folder, { recursive: true })
  const write = (line: Omit<Line, 'pid' | 'at'>): void =>
    appendFileSync(file, `${JSON.stringify({ ...line, pid: process.pid, at: Date.now() })}\n`)
  const times = (is: Line['is']): number => linesIn(file).filter((line) => line.is === is).length
  write({ is: 'started' })
  if (work.kills !== undefined && times('started') <= work.kills) process.kill(process.pid, 'SIGKILL')
  if (work.blocks && process.env['SCRIPT_WORKER'] === work.blocks.on) block(work.blocks.ms)
  while (work.holds && existsSync(holdFile(folder, path)) && !tools.signal.aborted) await delay(20)
  if (work.tells) {
    tools.progress({ stage: 'run', call: 1, calls: 2 })
    await tools.note(`${path} runs`)
    await tools.keep(Buffer.from(`${folder} ${path}`), 'image')
  }
  await delay(work.ms, undefined, work.isDeaf ? {} : { signal: tools.signal })
  if (failures === null || times('failed') < failures) {
    write({ is: 'failed' })
    throw new DarkroomError(codes[work.how], `step ${path} was told to fail`)
  }
  const token = randomUUID()
  write({ is: 'counted', token })
  return { n, token, said: mark + path }
}

const counting = { input: Work, output: Counted, attempts: 3, timeoutMs: 120_000, run: count } as const
const command = { lane: 'control', attempts: 1, timeoutMs: 600_000, output: z.unknown() } as const
const On = z.strictObject({ target: Target })

export const operations: OperationTable = {
  'test.count': operation({ ...counting, lane: 'host' }),
  'test.device': operation({ ...counting, lane: 'gpu' }),
  /** A step on a device, with a model that no worker has. */
  'test.nowhere': operation({
    input: z.unknown(),
    output: z.unknown(),
    lane: 'gpu',
    needs: () => ({ models: [{ id: 'a model of nobody', bodyHash: 'f'.repeat(64) }] }),
    attempts: 1,
    timeoutMs: 1000,
    run: () => Promise.reject(new Error('no worker has the model of this step')),
  }),
  /** Copies half of what its session holds onto the other half, for ever. */
  'test.copy': operation({
    ...command,
    input: On,
    needs: ({ target }) => ({ target }),
    run: async ({ target }, tools: Tools) => {
      const { memory: held } = tools.device(target)
      const own = held.list().find(({ owner }) => owner === tools.sessionId)
      if (!own) throw new Error('its session holds nothing')
      const bytes = Math.floor(own.bytes / 2)
      for (;;) await held.copy({ from: own.id, to: own.id, at: bytes, bytes }, { signal: tools.signal })
    },
  }),
  /** Allocates for the caller's key, blocks its process for so long, and never comes to an end with it. */
  'test.linger': operation({
    ...command,
    input: On.extend({ bytes: z.int(), blockMs: z.int() }),
    needs: ({ target }) => ({ target }),
    run: async ({ blockMs, ...input }, tools: Tools) => {
      const make = { kind: 'device', placement: 'automatic', ownedBy: 'key', timeToLiveMs: 600_000 }
      const made = await memory['memory.allocate'].run({ ...input, ...make }, tools)
      if (blockMs > 0) block(blockMs)
      await new Promise<void>((resolve) => tools.signal.addEventListener('abort', () => resolve(), { once: true }))
      return made
    },
  }),
}
