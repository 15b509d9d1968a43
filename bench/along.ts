/** `growth.alongRatio`: what a step costs as the thousandth of its session against what it costs as about the tenth. */
import { assign, setup } from 'xstate'
import { z } from 'zod'
import { defineWorkflow } from '../src/workflows/index.ts'
import { step } from '../src/workflows/step.ts'
import { openBench } from './engine.ts'
import { figure, type Benchmark } from './figure.ts'
import { median, range } from './statistics.ts'

const rounds = 15
const length = 1000
/** Steps of which the time is taken, early and late. */
const early = { from: 5, to: 55 }
const late = { from: length - 50, to: length }

interface At {
  n: number
  index: number
}

const loop = defineWorkflow({
  name: 'bench-loop',
  version: 1,
  title: 'Loop',
  description: `${length} steps, one after another, that do nothing.`,
  input: z.strictObject({ n: z.int() }),
  output: z.strictObject({}),
  machine: setup({
    types: { context: {} as At, input: {} as { n: number } },
    actors: { 'bench.nothing': step<At, At>() },
    guards: { isLast: ({ context }) => context.index === length - 1 },
  }).createMachine({
    id: 'loop',
    context: ({ input }) => ({ n: input?.n ?? 0, index: 0 }),
    initial: 'step',
    states: {
      step: {
        invoke: {
          id: 'step',
          src: 'bench.nothing',
          input: ({ context }) => context,
          onDone: [
            { guard: 'isLast', target: 'done' },
            { target: 'step', reenter: true, actions: assign({ index: ({ context }) => context.index + 1 }) },
          ],
        },
      },
      done: { type: 'final' },
    },
  }),
  progress: () => ({ fraction: 0 }),
  resources: { lanes: ['host'], note: 'nothing' },
})

export const along: Benchmark = {
  figures: ['growth.alongRatio'],
  isLong: true,
  async measure(say) {
    const hops = { early: [] as number[], late: [] as number[] }
    let lastEnd = 0
    const run = ({ index }: At): void => {
      const now = performance.now()
      if (index >= early.from && index < early.to) hops.early.push(now - lastEnd)
      if (index >= late.from && index < late.to) hops.late.push(now - lastEnd)
      lastEnd = now
    }
    await using bench = await openBench(run, { workflows: [loop] })
    const times = { early: [] as number[], late: [] as number[], ratios: [] as number[] }
    // The first one warms up.
    for (let round = 0; round <= rounds; round++) {
      hops.early.length = hops.late.length = 0
      const over = new Promise<void>((resolve) => (bench.onEnd = resolve))
      const { session } = await bench.engine.start({ workflow: loop.name, input: { n: round }, tags: [], priority: 5, keyId: null })
      await over
      const ended = await bench.engine.get(session.id)
      if (ended?.status !== 'succeeded') throw new Error(`void: the session is ${ended?.status}`)
      if (round === 0) continue
      const [before, after] = [median(hops.early), median(hops.late)]
      times.early.push(before)
      times.late.push(after)
      times.ratios.push(after / before)
    }
    say(
      `step ${early.from} to ${early.to}: ${range(times.early)} ms; ${late.from} to ${late.to}: ${range(times.late)} ms; ratios ${range(times.ratios)}`,
    )
    return [figure('growth.alongRatio', median(times.ratios), '', { atMost: 1.1 })]
  },
}
