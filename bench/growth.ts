/**
 * `growth.*`: what a workflow costs beside 1,000 and 100,000 sessions that wait for a timer, and as many that have
 * ended, against what it costs beside one of each.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { setup } from 'xstate'
import { z } from 'zod'
import { keys, newSessionId } from '../src/keys.ts'
import { defineWorkflow } from '../src/workflows/index.ts'
import type { Document } from '../src/engine/transition.ts'
import { openBench, type Bench } from './engine.ts'
import { figure, type Benchmark } from './figure.ts'
import { steady } from './load.ts'
import { median, medianRatio, range, rounded } from './statistics.ts'

/** Workflows a second, and for how long in each round: far below what one engine takes. */
const load = { rate: 100, ms: 2000 }
const warmUpMs = 3000
const rounds = 11
/** Sessions begun or ended at a time while a bench is filled. */
const atOnce = 200

/** Waits for a month. */
const waiting = defineWorkflow({
  name: 'bench-wait',
  version: 1,
  title: 'Wait',
  description: 'A timer.',
  input: z.strictObject({}),
  output: z.strictObject({}),
  machine: setup({}).createMachine({
    id: 'wait',
    initial: 'waiting',
    states: {
      waiting: { after: { [30 * 86_400_000]: 'done' } },
      done: { type: 'final' },
    },
  }),
  progress: () => ({ fraction: 0 }),
  resources: { lanes: ['host'], note: 'nothing' },
})

interface Sample {
  stepMs: number
  submitMs: number
  cpuMs: number
}

/** One engine with its Redis, beside `size` sessions that wait and `size` that have ended. */
interface Subject extends AsyncDisposable {
  size: number
  bench: Bench
  hops: number[]
  /** Bytes of Redis for each session that waits, and for each that has ended. */
  bytes: { waiting: number; ended: number }
  samples: Sample[]
}

const reading = async ({ redis }: Bench, section: string, name: string): Promise<number> =>
  Number(new RegExp(`^${name}:([\\d.]+)`, 'm').exec(await redis.info(section))?.[1])

/** Milliseconds of processor that Redis has used, its forks not counted. */
const cpuMs = async (bench: Bench): Promise<number> =>
  1000 * ((await reading(bench, 'cpu', 'used_cpu_user')) + (await reading(bench, 'cpu', 'used_cpu_sys')))

async function open(size: number, say: (line: string) => void): Promise<Subject> {
  const hops: number[] = []
  const lastEnd = new Map<number, number>()
  const bench = await openBench(
    ({ n, index }) => {
      const now = performance.now()
      const before = lastEnd.get(n)
      // The step does nothing: it ends when it begins.
      if (index > 0 && before !== undefined) hops.push(now - before)
      lastEnd.set(n, now)
    },
    // Retention looks, and finds nothing to do.
    { workflows: [waiting], settings: { DARKROOM_KEEP_SESSIONS: '10000000' } },
  )
  const from = performance.now()
  try {
    const bytes = await fill(bench, size)
    const seconds = rounded((performance.now() - from) / 1000)
    say(`${size} waiting, ${size} ended: ${seconds} s, ${rounded(bytes.waiting)} and ${rounded(bytes.ended)} bytes each`)
    return { size, bench, hops, bytes, samples: [], [Symbol.asyncDispose]: () => bench[Symbol.asyncDispose]() }
  } catch (error) {
    await bench[Symbol.asyncDispose]()
    throw error
  }
}

async function each(count: number, act: (n: number) => Promise<unknown>): Promise<void> {
  let next = 0
  const lane = async (): Promise<void> => {
    while (next < count) await act(next++)
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, count) }, lane))
}

/**
 * One session is really submitted; the others are written as copies of it by the scripts that submit and cancel, which
 * takes half a minute in place of many.
 */
async function fill(bench: Bench, size: number): Promise<Subject['bytes']> {
  const { engine, redis } = bench
  const { session } = await engine.start({ workflow: waiting.name, input: {}, tags: [], priority: 5, keyId: null })
  const record = await redis.hgetall(keys.session(session.id))
  const fields = Object.fromEntries(['workflow', 'input', 'snapshot', 'tags', 'priority'].map((name) => [name, record[name] ?? '']))
  const timers = Object.values((JSON.parse(record['snapshot'] ?? '') as Document).effects).flatMap((effect) =>
    'delayMs' in effect ? [{ suffix: effect.suffix, delayMs: effect.delayMs }] : [],
  )
  if (timers.length !== 1) throw new Error(`void: a session waits for ${timers.length} timers`)
  const submit = async (): Promise<string> => {
    const id = newSessionId(0, Date.now())
    await engine.store.create({
      id,
      idempotency: undefined,
      deadlineMs: undefined,
      entry: { type: 'session.created', workflow: session.workflow },
      carried: undefined,
      indexes: [`workflow:${waiting.name}`],
      pictures: [],
      fields,
      effects: { closed: [], steps: [], sessions: [], items: [], timers, parked: record['parked'] ?? '' },
      reserve: Number(record['reserve']),
      items: [],
      end: undefined,
    })
    return id
  }
  const empty = await reading(bench, 'memory', 'used_memory')
  await each(size, submit)
  const half = await reading(bench, 'memory', 'used_memory')
  await each(size, async () => {
    const reply = await engine.store.control(await submit(), 'cancel')
    if (reply.is !== 'ok') throw new Error(`void: a session to cancel is ${reply.is}`)
  })
  const full = await reading(bench, 'memory', 'used_memory')
  // Redis writes its file anew while it grows; what is measured later must not meet that by chance.
  await bench.redis.config('SET', 'auto-aof-rewrite-percentage', '0')
  while ((await reading(bench, 'persistence', 'aof_rewrite_in_progress')) !== 0) await delay(100)
  return { waiting: (half - empty) / size, ended: (full - half) / size }
}

async function sample({ bench, hops }: Subject, ms: number): Promise<Sample> {
  const submits: number[] = []
  hops.length = 0
  let ended = 0
  const source = {
    onEnd: (): void => undefined,
    start: async (n: number): Promise<void> => {
      const from = performance.now()
      await bench.start(n)
      submits.push(performance.now() - from)
    },
  }
  bench.onEnd = () => {
    ended++
    source.onEnd()
  }
  const before = await cpuMs(bench)
  await steady(source, load.rate, ms)
  return { stepMs: median(hops), submitMs: median(submits), cpuMs: ((await cpuMs(bench)) - before) / ended }
}

export const growth: Benchmark = {
  figures: ['growth.stepRatio', 'growth.submitRatio', 'growth.cpuRatio', 'growth.memoryRatio'],
  isLong: true,
  async measure(say) {
    await using one = await open(1, say)
    await using few = await open(1000, say)
    await using many = await open(100_000, say)
    const subjects = [one, few, many]
    for (const subject of subjects) await sample(subject, warmUpMs)
    for (let i = 0; i < rounds; i++) {
      // Who comes first changes, so that a machine that slows down slows all.
      const turn = i % subjects.length
      for (const subject of [...subjects.slice(turn), ...subjects.slice(0, turn)]) subject.samples.push(await sample(subject, load.ms))
    }
    for (const { size, samples } of subjects) {
      const of = (name: keyof Sample): string => {
        const values = samples.map((each) => each[name])
        return `${rounded(median(values))} ms (${range(values)})`
      }
      say(`beside ${size}: step ${of('stepMs')}, submit ${of('submitMs')}, Redis ${of('cpuMs')} a workflow`)
    }
    const of = ({ samples }: Subject, name: keyof Sample): number[] => samples.map((each) => each[name])
    const worst = (name: keyof Sample): number => Math.max(...[few, many].map((subject) => medianRatio(of(subject, name), of(one, name))))
    const memory = Math.max(many.bytes.waiting / few.bytes.waiting, many.bytes.ended / few.bytes.ended)
    return [
      figure('growth.stepRatio', worst('stepMs'), '', { atMost: 1.2 }),
      figure('growth.submitRatio', worst('submitMs'), '', { atMost: 1.2 }),
      figure('growth.cpuRatio', worst('cpuMs'), '', { atMost: 1.2 }),
      figure('growth.memoryRatio', memory, '', { atMost: 1.2 }),
    ]
  },
}
