import { z } from 'zod'
import { operation } from '../operation.ts'
import { Count, ImageRequest, withOwnVae } from '../values.ts'
import { Measured, measured, MeasureModel, Pace } from './measured.ts'

const told = Pace.extend({
  /** Of the model's weights on the device. */
  bytes: Count,
  /** Whether the system could be asked to forget the files before the first load. */
  isCold: z.boolean(),
  coldLoadS: z.number(),
  warmLoadS: z.number(),
  /** At most while the picture was drawn: on the device, of the CPU alone in the process; null where unknown. */
  peakBytes: Count.nullable(),
})

/** What a model does on a class of devices. */
export const Benchmark = told
  .extend(ImageRequest.pick({ width: true, height: true, sampler: true }).shape)
  .extend({
    id: z.string(),
    /** Hardware class of the device: its exactness key. */
    exactnessKey: z.string(),
    calls: Count,
    callsPerS: z.number(),
    coldGbPerS: z.number().describe('weights on the device by the seconds of the load, 10⁹ bytes a second'),
    warmGbPerS: z.number(),
  })
  .meta({ id: 'ModelBenchmark' })
export type Benchmark = z.infer<typeof Benchmark>

/**
 * Measures a model on a device: its load with cold files and warm ones, a picture part by part, and the memory that it
 * takes at most. The figures are kept by model and hardware class. It lets go of the model twice, and leaves it
 * resident.
 * @throws DarkroomError as `model.load` and `inference.denoise`
 */
export const benchmark = operation({
  lane: 'gpu',
  attempts: 3,
  timeoutMs: 3_600_000,
  needs: ({ model }) => ({ models: withOwnVae(model) }),
  input: Measured,
  output: Benchmark,
  python: { input: Measured, output: told },
  async run(request, tools) {
    const { output, bodyHash } = await tools.python(request, {})
    const figures = told.parse(output)
    const { model, width, height, sampler, steps: calls } = request
    const made = {
      id: model.id,
      exactnessKey: tools.exactness.key,
      width,
      height,
      sampler,
      calls,
      ...figures,
      callsPerS: 1 / Math.max(figures.callS, 1e-9),
      coldGbPerS: figures.bytes / 1e9 / Math.max(figures.coldLoadS, 1e-9),
      warmGbPerS: figures.bytes / 1e9 / Math.max(figures.warmLoadS, 1e-9),
    }
    if (bodyHash !== null) await tools.shelf.recordBenchmark(bodyHash, made)
    return made
  },
  command: {
    title: 'Measure a model',
    description:
      'Loads a model with cold files and with warm ones, draws a picture that nobody sees, and keeps the figures by model and hardware class.',
    input: MeasureModel,
    resolve: measured,
    route: {
      method: 'post',
      path: '/models/{model}/benchmark',
      query: ['kind'],
      body: 'BenchmarkModel',
      isBodyRequired: false,
      answers: 'The figures',
    },
  },
})
