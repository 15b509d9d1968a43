import { z } from 'zod'
import { operation } from '../operation.ts'
import { Count, withOwnVae } from '../values.ts'
import { Measured, measured, MeasureModel, Pace } from './measured.ts'

const Figures = Pace.extend({ reservedBytes: Count.nullable() })
const told = z.strictObject({
  bytes: Count,
  /** In which its pictures are computed. Told and not changed: pictures follow from it. */
  precision: z.string(),
  attention: z.string(),
  /** The first picture. */
  before: Figures,
  /** The last picture, and what was reserved when the caches were given back. */
  after: Figures,
  freedBytes: Count.nullable(),
})

/**
 * Warms a model up on a device: draws until nothing is done for the first time any more, and gives back what that left
 * in the allocator. Precision and attention stay as they are, because the bytes of pictures follow from them.
 * @throws DarkroomError as `model.load` and `inference.denoise`
 */
export const optimize = operation({
  lane: 'gpu',
  attempts: 3,
  timeoutMs: 3_600_000,
  needs: ({ model }) => ({ models: withOwnVae(model) }),
  input: Measured,
  output: told.extend({ id: z.string() }).meta({ id: 'ModelOptimized' }),
  python: { input: Measured, output: told },
  run: async (request, tools) => ({ id: request.model.id, ...told.parse((await tools.python(request, {})).output) }),
  command: {
    title: 'Optimize a model',
    description:
      'Loads a model and warms it up on a device, so that the next picture is as fast as any; figures of the first and the last.',
    input: MeasureModel,
    resolve: measured,
    route: {
      method: 'post',
      path: '/models/{model}/optimize',
      query: ['kind'],
      body: 'OptimizeModel',
      isBodyRequired: false,
      answers: 'Before and after',
    },
  },
})
