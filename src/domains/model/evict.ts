import { z } from 'zod'
import { brief, DeviceName } from '../command.ts'
import { operation } from '../operation.ts'
import { Count, ModelKind, ModelName, Target } from '../values.ts'
import { CachedModel } from './cached.ts'

/**
 * Lets go of a model in the RAM of one worker, in every body. What is on the device stays there.
 * @throws DarkroomError `device.lost`
 */
export const evict = operation({
  ...brief,
  input: z.strictObject({ target: Target, model: ModelName, kind: ModelKind }),
  output: z
    .strictObject({
      device: z.string(),
      /** What went; nothing where it was not cached. */
      evicted: z.array(CachedModel),
      bytes: Count,
    })
    .meta({ id: 'ModelEvicted' }),
  async run({ target, model, kind }, tools) {
    const device = tools.device(target)
    const evicted = device.evictCached(model, kind)
    await device.publish()
    return { device: device.device, evicted, bytes: evicted.reduce((sum, { bytes }) => sum + bytes, 0) }
  },
  command: {
    title: 'Evict a model',
    description: 'Lets go of a model in the RAM of the worker of one device. A model on the device stays there.',
    input: z.strictObject({
      // It may lie in no folder any more.
      model: ModelName,
      kind: ModelKind.describe('only what is of this kind; default: whatever has the name'),
      device: DeviceName.optional().describe('whose worker; default: your default device, else the only one'),
    }),
    resolve: async ({ device, ...named }, catalogue) => ({ target: await catalogue.device(device, 'input.device'), ...named }),
    route: {
      method: 'post',
      path: '/models/{model}/evict',
      query: ['kind'],
      body: 'EvictModel',
      isBodyRequired: false,
      answers: 'What went',
    },
  },
})
