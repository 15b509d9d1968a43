/**
 * The workflow `program@1`, which runs a program of `program.ts`, and the operations of its steps: loaded by the APIs and workers of the
 * verifier's farm as a `module`. The machine holds what has happened; which effects should be open follows from that alone.
 */
import { appendFileSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { enqueueActions, setup, type AnyEventObject } from 'xstate'
import { z } from 'zod'
import { operation, type OperationTable, type Tools } from '../../../src/domains/operation.ts'
import { DarkroomError, defineErrors } from '../../../src/errors.ts'
import { session } from '../../../src/workflows/child-session.ts'
import { step } from '../../../src/workflows/step.ts'
import { defineWorkflow, type Workflow } from '../../../src/workflows/index.ts'
import { below, insideChild, Node } from './program.ts'

export const verifyError = defineErrors('verify', {
  flaky: { class: 'transient', remedy: 'The program asks for it.' },
  scarce: { class: 'resource', remedy: 'The program asks for it.' },
  refused: { class: 'permanent', remedy: 'The program asks for it.' },
})

const Input = z.strictObject({
  key: z.string(),
  /** Folder outside Redis, in which every step notes what it does. */
  ledger: z.string(),
  path: z.string().default(''),
  program: Node,
})
type Input = z.infer<typeof Input>

const Work = z.strictObject({
  key: z.string(),
  ledger: z.string(),
  path: z.string(),
  n: z.int(),
  ms: z.int(),
  isDeaf: z.boolean(),
  /** Fails so often before it counts; null: always. */
  failures: z.int().nullable(),
  how: z.enum(['permanent', 'transient', 'resource']),
})
type Work = z.infer<typeof Work>
const Counted = z.strictObject({ n: z.int(), token: z.string() })

export interface Output {
  total: number
  trace: string[]
  /** The token of each step whose result counts, by path. */
  tokens: Record<string, string>
}

/** What has happened to a program: how its effects ended, by path, and how often each signal was heard. */
export interface Seen {
  ends: Record<string, { output: unknown } | { code: string }>
  heard: Record<string, number>
}

type Effect =
  | { is: 'step'; path: string; source: 'verify.count' | 'verify.device'; work: Omit<Work, 'key' | 'ledger'> }
  | { is: 'timer'; path: string; ms: number }
  | { is: 'child'; path: string; body: Node }
  | { is: 'picture'; path: string; seed: number }

type Look = { is: 'open'; effects: Effect[] } | ({ is: 'done' } & Output) | { is: 'failed'; code: string }

const done = (total: number, trace: string[], tokens: Record<string, string> = {}): Look => ({ is: 'done', total, trace, tokens })

/** Where a program stands: done, failed, or what must be open now. */
export function look(node: Node, path: string, seen: Seen): Look {
  const end = seen.ends[path]
  switch (node.do) {
    case 'step':
    case 'fail': {
      if (end && 'code' in end) return { is: 'failed', code: end.code }
      if (end) {
        const { n, token } = end.output as z.infer<typeof Counted>
        return done(n, [`${path}=${n}`], { [path]: token })
      }
      const work: Omit<Work, 'key' | 'ledger'> =
        node.do === 'step'
          ? { path, n: node.n, ms: node.ms, isDeaf: node.isDeaf, failures: node.flaky?.times ?? 0, how: node.flaky?.how ?? 'permanent' }
          : { path, n: 0, ms: node.ms, isDeaf: true, failures: null, how: node.how }
      return open({ is: 'step', path, source: node.do === 'step' && node.lane === 'gpu' ? 'verify.device' : 'verify.count', work })
    }
    case 'timer':
      return end ? done(0, [`${path}+${node.ms}`]) : open({ is: 'timer', path, ms: node.ms })
    case 'signal':
      return path in seen.heard ? done(0, [`${path}~${seen.heard[path]}`]) : open()
    case 'child': {
      if (!end) return open({ is: 'child', path, body: node.body })
      return 'code' in end ? { is: 'failed', code: end.code } : { is: 'done', ...(end.output as Output) }
    }
    case 'picture': {
      if (!end) return open({ is: 'picture', path, seed: node.seed })
      if ('code' in end) return { is: 'failed', code: end.code }
      return done(0, [`${path}#${(end.output as { images: { sha256: string }[] }).images[0]?.sha256}`])
    }
    case 'try': {
      const body = look(node.body, below(path, 0), seen)
      return body.is === 'failed' ? done(0, [`${path}!${body.code}`]) : body
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

const open = (...effects: Effect[]): Look => ({ is: 'open', effects })

function together(parts: Look[]): Look {
  const failed = parts.find((part) => part.is === 'failed')
  if (failed) return failed
  if (parts.some((part) => part.is === 'open')) return open(...parts.flatMap((part) => (part.is === 'open' ? part.effects : [])))
  const all = parts as (Output & { is: 'done' })[]
  return done(
    all.reduce((sum, { total }) => sum + total, 0),
    all.flatMap(({ trace }) => trace),
    Object.assign({}, ...all.map(({ tokens }) => tokens)) as Record<string, string>,
  )
}

interface Context extends Seen {
  input: Input
  /** Kinds of the open effects, by path. */
  open: Record<string, Effect['is']>
  now: 'open' | 'done' | 'failed'
}

/** XState's ids of effects: a path may be empty. */
const idOf = (path: string): string => `at:${path}`
const pathOf = (id: unknown): string => String(id).slice('at:'.length)

/** What an event adds to what has happened. */
function after({ ends, heard }: Seen, event: AnyEventObject): Seen {
  const { type } = event
  if (type === 'time') return { ends: { ...ends, [event['path'] as string]: { output: null } }, heard }
  if (type === 'signal.go') {
    const { path } = event['data'] as { path: string }
    return { ends, heard: { ...heard, [path]: (heard[path] ?? 0) + 1 } }
  }
  const path = pathOf(event['actorId'])
  if (type.startsWith('xstate.done.actor.')) return { ends: { ...ends, [path]: { output: event['output'] } }, heard }
  if (type.startsWith('xstate.error.actor.'))
    return { ends: { ...ends, [path]: { code: (event['error'] as { code: string }).code } }, heard }
  return { ends, heard }
}

const types = { context: {} as Context, input: {} as Input, output: {} as Output | { error: unknown }, events: {} as AnyEventObject }
const actors = {
  'verify.count': step<Work, z.infer<typeof Counted>>(),
  'verify.device': step<Work, z.infer<typeof Counted>>(),
  'program@1': session<Input, Output>(),
  'image-generation@1': session<Record<string, unknown>, unknown>(),
}

/** Takes the event in, then opens what should be open and closes what should not. */
const advance = enqueueActions(({ context, event, enqueue: queue }) => {
  // Effects are opened by name, as data: XState's types would have every one written out.
  const enqueue = queue as unknown as {
    assign(values: Partial<Context>): void
    raise(event: AnyEventObject, options: { id: string; delay: number }): void
    spawnChild(source: string, options: { id: string; input: unknown }): void
    cancel(id: string): void
    stopChild(id: string): void
  }
  const before = context as Context
  const { input } = before
  const { key, ledger } = input
  const seen = after(before, event)
  const at = look(input.program, input.path, seen)
  const wanted = new Map((at.is === 'open' ? at.effects : []).map((effect) => [effect.path, effect]))
  for (const [path, is] of Object.entries(before.open)) {
    if (wanted.has(path) || path in seen.ends) continue
    if (is === 'timer') enqueue.cancel(idOf(path))
    else enqueue.stopChild(idOf(path))
  }
  for (const [path, effect] of wanted) {
    if (path in before.open) continue
    const id = idOf(path)
    if (effect.is === 'timer') enqueue.raise({ type: 'time', path }, { id, delay: effect.ms })
    else if (effect.is === 'step') enqueue.spawnChild(effect.source, { id, input: { ...effect.work, key, ledger } })
    else if (effect.is === 'child')
      enqueue.spawnChild('program@1', { id, input: { key, ledger, path: insideChild(path), program: effect.body } })
    else enqueue.spawnChild('image-generation@1', { id, input: picture(effect.seed) })
  }
  enqueue.assign({ ...seen, open: Object.fromEntries([...wanted].map(([path, { is }]) => [path, is])), now: at.is })
})

/** The request of a picture, as `picture` nodes and the undisturbed run ask for it. */
export const picture = (seed: number): Record<string, unknown> => ({ prompt: 'a red circle', seed, steps: 30 })

const machine = setup({ types, actors, actions: { advance: advance as never } }).createMachine({
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
    if (at.is === 'done') return { total: at.total, trace: at.trace, tokens: at.tokens }
    const code = at.is === 'failed' ? at.code : 'workflow.broken'
    return { error: new DarkroomError(code, 'the program failed').toWire() }
  },
})

const program = defineWorkflow({
  name: 'program',
  input: Input,
  machine,
})

export const workflows: Workflow[] = [program]

/** One line of the ledger. */
export interface Line {
  is: 'started' | 'failed' | 'counted'
  token?: string
  pid: number
  at: number
}

/** A step's own file: it must be told apart from all others, and read again by the next attempt. */
export const ledgerFile = (ledger: string, key: string, path: string): string => join(ledger, key, `at ${path.replaceAll('/', ' in ')}`)

const codes = { transient: 'verify.flaky', resource: 'verify.scarce', permanent: 'verify.refused' } as const

async function work({ key, ledger, path, n, ms, isDeaf, failures, how }: Work, tools: Tools): Promise<z.infer<typeof Counted>> {
  const file = ledgerFile(ledger, key, path)
  mkdirSync(join(ledger, key), { recursive: true })
  const write = (line: Omit<Line, 'pid' | 'at'>): void =>
    appendFileSync(file, `${JSON.stringify({ ...line, pid: process.pid, at: Date.now() })}\n`)
  write({ is: 'started' })
  await delay(ms, undefined, isDeaf ? {} : { signal: tools.signal })
  const failed = readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line.includes('"is":"failed"')).length
  if (failures === null || failed < failures) {
    write({ is: 'failed' })
    throw new DarkroomError(codes[how], `step ${path} was told to fail`)
  }
  const token = randomUUID()
  write({ is: 'counted', token })
  return { n, token }
}

const common = { input: Work, output: Counted, attempts: 3, timeoutMs: 60_000, run: work } as const

export const operations: OperationTable = {
  'verify.count': operation({ ...common, lane: 'host' }),
  'verify.device': operation({ ...common, lane: 'gpu' }),
}
