import { z } from 'zod'
import { isBeside } from '../../models/families.ts'
import { operation } from '../operation.ts'
import { Count, WantedModel, withOwnVae } from '../values.ts'
import { wanted } from './named.ts'
import { Named } from './on-disk.ts'

const input = z.strictObject({ model: WantedModel })
const told = z.strictObject({ id: z.string(), bytes: Count })

/** `bytes` of its weights on the device, and the seconds that its load took: 0 of one that was resident. */
export const Loaded = told
  .extend({
    wasResident: z.boolean(),
    seconds: z.number(),
    ramBytes: Count.describe('read from the worker’s cache in RAM'),
    diskBytes: Count,
    gbPerS: z.number().nullable().describe('weights by the seconds of the load, 10⁹ bytes a second; null where nothing was loaded'),
  })
  .meta({ id: 'ModelLoaded' })

/**
 * Makes a model resident on a device ahead of the work. One that was not hashed is, before.
 * @throws DarkroomError `model.corrupt`, `model.load_failed`, `model.missing`, `model.unreadable`
 */
export const load = operation({
  lane: 'gpu',
  attempts: 3,
  timeoutMs: 3_600_000,
  needs: ({ model }) => ({ models: withOwnVae(model) }),
  input,
  output: Loaded,
  python: { input, output: told },
  async run(request, tools) {
    const { output, load } = await tools.python(request, {})
    const { id, bytes } = told.parse(output)
    return { id, bytes, ...load, gbPerS: load.seconds > 0 ? bytes / 1e9 / load.seconds : null }
  },
  command: {
    title: 'Load a model',
    description:
      'Makes a model, a ControlNet, an upscaler or a preprocessor resident on a device ahead of the work, which then need not wait for it.',
    input: Named,
    resolve: async (given, catalogue) => ({ model: await wanted(given, catalogue, isBeside) }),
    route: { method: 'post', path: '/models/{model}/load', query: ['kind'], answers: 'The model' },
  },
})
