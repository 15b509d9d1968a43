/**
 * `gpu.…`: Stable Diffusion 1.5 and XL at full size with random weights on this machine's NVIDIA GPU, drawn by a whole
 * farm over HTTP, from POST to the stored PNG, by turns with a bare call of diffusers. Not on a machine without one.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { root } from '../src/config.ts'
import { productTimes } from '../src/engine/times.ts'
import { interpreter } from '../test/support/child.ts'
import { startFarm, type Farm } from '../test/support/farm.ts'
import { figure, type Benchmark, type Figure } from './figure.ts'
import { saved } from './saving.ts'
import { gapsBetween, partsInWords, partsOf, sessionOver, workOf, type Span } from './sessions.ts'
import { median, medianRatio, range, rounded } from './statistics.ts'

const rounds = 8
const queued = 8
/** Sessions of one step before those that count: a server that runs for days has compiled its own code by then. */
const before = 60
/** How often those are drawn one at a time and two at a time. */
const turns = 3
const script = join(root, 'bench', 'gpu', 'bare.py')
const texts = { prompt: 'a photo of an astronaut riding a horse on the moon', negativePrompt: 'blurry, low quality' }

interface Kind {
  model: 'sd15' | 'sdxl'
  size: number
  /** What a session may take of a bare call's time. */
  atMost: number
}

const kinds: readonly Kind[] = [
  { model: 'sd15', size: 512, atMost: 0.4 },
  { model: 'sdxl', size: 1024, atMost: 0.45 },
]
const steps = 30
const name = (model: string): string => `gpu.${model}`

/** diffusers in a process of its own; it draws a picture a line. */
class Bare implements AsyncDisposable {
  readonly #process: ChildProcess
  readonly #lines: AsyncIterator<string>

  constructor(folder: string, size: number) {
    const child = spawn(interpreter(), [script, 'draw', folder, String(size), String(steps)], { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#process = child
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  }

  /** Seconds of one call. @throws Error when the process ended */
  async draw(): Promise<number> {
    this.#process.stdin?.write(`${JSON.stringify(texts)}\n`)
    const { done, value } = await this.#lines.next()
    if (done) throw new Error('void: the bare side ended; its own words stand above')
    return (JSON.parse(value) as { seconds: number }).seconds
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.stdin?.end()
    if (this.#process.exitCode === null) await once(this.#process, 'exit')
  }
}

async function make(model: string, folder: string): Promise<void> {
  const [code] = (await once(spawn(interpreter(), [script, 'make', model, folder], { stdio: 'inherit' }), 'exit')) as [number]
  if (code !== 0) throw new Error(`void: ${model} could not be made; the script's own words stand above`)
}

/** What the driver said of the GPU: how busy it was in the period before, of 1. */
interface Reading {
  /** Ms since the epoch. */
  at: number
  busy: number
}
/** Time that a reading tells of, ms, and how old it may be: so often the driver of an H200 has another one. */
const periodMs = 200

/** How busy the GPU was while something ran, ten times a second. */
async function readWhile(run: () => Promise<void>): Promise<Reading[]> {
  const watcher = spawn('nvidia-smi', ['--query-gpu=timestamp,utilization.gpu', '--format=csv,noheader,nounits', '--loop-ms=100'])
  let text = ''
  watcher.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
  try {
    await run()
  } finally {
    watcher.kill()
  }
  const lines = text.split('\n').filter((line) => line.includes(', '))
  return lines.map((line) => line.split(', ')).map(([at = '', share]) => ({ at: Date.parse(at), busy: Number(share) / 100 }))
}

/** The mean of the readings that tell of nothing but this span. */
function busyWithin({ from, to }: Span, readings: readonly Reading[]): number {
  const within = readings.filter(({ at }) => at >= from + 2 * periodMs && at <= to)
  return within.reduce((sum, { busy }) => sum + busy, 0) / within.length
}

/** A farm whose one worker has the GPU, with so many slots, and a checkpoint every so many calls. */
const farmOf = (models: string, checkpointCalls: number, slots = 1): Promise<Farm> =>
  startFarm({
    times: productTimes,
    real: true,
    checkpointCalls,
    settings: { DARKROOM_DEVICE: 'cuda', DARKROOM_MODELS: models, DARKROOM_THREADS: '4', DARKROOM_DEVICE_SLOTS: String(slots) },
  })

interface Queued {
  ids: string[]
  /** SHA-256 of all pictures. */
  pictures: string[]
  /** From the first submit to the last picture. */
  seconds: number
  /** Of the GPU's time from the first step on it to the end of the last, by its driver. */
  busy: number
}

/** Draws sessions that are all in the queue at once. */
async function drawQueued(farm: Farm, request: object): Promise<Queued> {
  const ids: string[] = []
  const pictures: string[] = []
  const from = performance.now()
  const readings = await readWhile(async () => {
    for (let i = 0; i < queued; i++) ids.push(await farm.submit({ ...request, seed: 200 + i }))
    for (const id of ids) pictures.push(...(await farm.pictures(id, 300_000)))
  })
  const seconds = (performance.now() - from) / 1000
  const spans: Span[] = []
  for (const id of ids) spans.push((await workOf(farm, id)).span)
  const drawn = { from: Math.min(...spans.map(({ from }) => from)), to: Math.max(...spans.map(({ to }) => to)) }
  return { ids, pictures, seconds, busy: busyWithin(drawn, readings) }
}

async function measureKind(models: string, { model, size, atMost }: Kind, say: (line: string) => void): Promise<Figure[]> {
  await make(model, join(models, model))
  await using bare = new Bare(join(models, model), size)
  await using farm = await farmOf(models, 10_000)
  await using careful = await farmOf(models, 1)
  await using shared = await farmOf(models, 10_000, 2)
  const request = { ...texts, model, width: size, height: size, steps, guidance: 7, sampler: 'Euler a' }
  const session = (seed: number, where = farm): ReturnType<typeof sessionOver> => sessionOver(where, { ...request, seed })
  // Kernels are chosen, the model is loaded and hashed, and the graph recorded by then.
  for (let i = 0; i < 3; i++) {
    await bare.draw()
    await session(i)
    await session(i, careful)
    await session(i, shared)
  }
  for (let i = 0; i < before; i++) await sessionOver(farm, { ...request, seed: i, steps: 1 })
  // Each slot records graphs of its own.
  await drawQueued(shared, request)

  const [ours, theirs, shares, decodes, plain, kept]: number[][] = [[], [], [], [], [], []]
  const parts: Map<string, number>[] = []
  for (let i = 0; i < rounds; i++) {
    theirs?.push(await bare.draw())
    const over = await session(100 + i)
    const { id, ms } = over
    const { seconds, of } = await workOf(farm, id)
    parts.push(await partsOf(farm, over))
    ours?.push(ms / 1000)
    shares?.push(1 - (seconds * 1000) / ms)
    decodes?.push((of['inference.decode'] ?? NaN) * 1000)
    plain?.push(of['inference.denoise'] ?? NaN)
    const other = await session(100 + i, careful)
    kept?.push((await workOf(careful, other.id)).of['inference.denoise'] ?? NaN)
  }
  if (!ours || !theirs || !shares || !decodes || !plain || !kept) throw new Error('void')
  say(`${model}: bare ${range(theirs)} s, session ${range(ours)} s, decode ${range(decodes)} ms, denoise ${range(plain)} s`)
  say(`${model}: denoise with a checkpoint after every call ${range(kept)} s`)
  say(`${model}: where its time goes, ms: ${partsInWords(parts)}`)
  say(`${model}: of a save alone, ms: ${await saved(size)}`)

  const gaps: number[] = []
  const [busy, sharedBusy, ratios]: number[][] = [[], [], []]
  for (let i = 0; i < turns; i++) {
    const one = await drawQueued(farm, request)
    const two = await drawQueued(shared, request)
    if (one.pictures.join() !== two.pictures.join()) throw new Error(`void: sessions that share the device drew other bytes of ${model}`)
    gaps.push(...(await gapsBetween(farm, one.ids)))
    busy?.push(one.busy)
    sharedBusy?.push(two.busy)
    ratios?.push(two.seconds / one.seconds)
    say(`${model}: ${queued} queued, one at a time ${rounded(one.seconds)} s, two ${rounded(two.seconds)} s, the same pictures`)
  }
  if (!busy || !sharedBusy || !ratios) throw new Error('void')
  say(`${model}: gaps of ${range(gaps)} ms; busy ${range(busy)} one at a time, ${range(sharedBusy)} two`)
  const fast = model === 'sdxl' ? [await fastRatio(farm, shared, request, say)] : []
  return [
    figure(`${name(model)}Ratio`, medianRatio(ours, theirs), '', { atMost }),
    figure(`${name(model)}TaxShare`, median(shares), '', { atMost: 0.03 }),
    figure(`${name(model)}GapMs`, median(gaps), 'ms', { atMost: 50 }),
    figure(`${name(model)}BusyShare`, median(busy), '', { atLeast: 0.98 }),
    figure(`${name(model)}SharedBusyShare`, median(sharedBusy), '', { atLeast: 0.98 }),
    figure(`${name(model)}SharedRatio`, median(ratios), '', { atMost: 0.95 }),
    figure(`${name(model)}CheckpointRatio`, medianRatio(kept, plain), '', { atMost: 1.015 }),
    ...(model === 'sdxl' ? [figure('gpu.sdxlDecodeMs', median(decodes), 'ms', { atMost: 60 })] : []),
    ...fast,
  ]
}

/** Of the class `fast`: eight queued sessions two at a time, as rows of one forward, against one at a time. */
async function fastRatio(farm: Farm, shared: Farm, request: object, say: (line: string) => void): Promise<Figure> {
  const fast = { ...request, class: 'fast' }
  // Compiled by then, for two rows and for four.
  for (const each of [farm, shared]) await drawQueued(each, fast)
  const ratios: number[] = []
  for (let i = 0; i < turns; i++) {
    const [one, two] = [await drawQueued(farm, fast), await drawQueued(shared, fast)]
    ratios.push(two.seconds / one.seconds)
    const calls: number[] = []
    for (const id of two.ids) {
      const [attempt] = await shared.attempts(id, 'inference.denoise')
      calls.push(Number((attempt?.stats as { fast?: { coBatch?: { calls: number } } } | null)?.fast?.coBatch?.calls ?? 0))
    }
    if (calls.every((count) => count === 0)) throw new Error('void: no call was computed together with another')
    say(`fast: one at a time ${rounded(one.seconds)} s, two ${rounded(two.seconds)} s, of ${steps} calls ${range(calls)} together`)
  }
  return figure('gpu.sdxlFastSharedRatio', median(ratios), '', { atMost: 0.95 })
}

/** One for each kind, so that either can be asked for alone. */
export const gpu: readonly Benchmark[] = kinds.map((kind) => ({
  figures: [
    ...['Ratio', 'TaxShare', 'GapMs', 'BusyShare', 'SharedBusyShare', 'SharedRatio', 'CheckpointRatio'].map(
      (what) => `${name(kind.model)}${what}`,
    ),
    ...(kind.model === 'sdxl' ? ['gpu.sdxlDecodeMs', 'gpu.sdxlFastSharedRatio'] : []),
  ],
  isLong: true,
  async measure(say) {
    if (!existsSync('/proc/driver/nvidia/version')) throw new Error('void: there is no NVIDIA driver here')
    const models = await mkdtemp(join(tmpdir(), 'darkroom-gpu-'))
    try {
      return await measureKind(models, kind, say)
    } finally {
      await rm(models, { recursive: true, force: true })
    }
  },
}))
