import { z } from 'zod'
import { besides, isBeside } from '../../models/families.ts'
import { DeviceName, lasting } from '../command.ts'
import { operation } from '../operation.ts'
import { ModelKind, ModelName, Target } from '../values.ts'
import { CachedModel } from './cached.ts'
import { wanted } from './named.ts'

/**
 * Reads a model into the RAM of one worker, from where it comes onto the device much faster. One that was not hashed
 * is, before. It goes with the epoch of its worker, for want of RAM, and for another model's sake.
 * @throws DarkroomError `memory.exhausted`, `model.missing`, `model.changed`, `model.unreadable`, `device.lost`
 */
export const cache = operation({
  ...lasting,
  input: z.strictObject({ target: Target, model: ModelName, kind: z.enum(besides).optional() }),
  output: CachedModel.extend({
    device: z.string(),
    /** How long the reading took; of one that was there already next to nothing. */
    seconds: z.number(),
  }).meta({ id: 'ModelCached' }),
  async run({ target, model, kind }, tools) {
    const device = tools.device(target)
    const began = performance.now()
    const made = await tools.shelf.cached({ id: model, kind })
    const seconds = (performance.now() - began) / 1000
    await device.publish()
    return { ...made, device: device.device, seconds }
  },
  command: {
    title: 'Cache a model',
    description:
      'Reads a model, a ControlNet, an upscaler or a preprocessor into the RAM of the worker of one device, so that its load need not wait for the disk.',
    input: z.strictObject({
      model: ModelName,
      kind: ModelKind,
      device: DeviceName.optional().describe('whose worker; default: your default device, else the only one'),
    }),
    async resolve({ device, ...named }, catalogue) {
      const { id, kind } = await wanted(named, catalogue, isBeside)
      return { target: await catalogue.device(device, 'input.device'), model: id, ...(isBeside(kind) && { kind }) }
    },
    route: {
      method: 'post',
      path: '/models/{model}/cache',
      query: ['kind'],
      body: 'CacheModel',
      isBodyRequired: false,
      answers: 'What is cached',
    },
  },
})
