import { z } from 'zod'
import { brief, DeviceName } from '../command.ts'
import { operation } from '../operation.ts'
import { Count, ModelKind, ModelName, Target } from '../values.ts'

/**
 * Lets go of a model on one device; it is loaded again when it is needed. A command: what it speaks of goes with the
 * epoch of its worker anyway.
 * @throws DarkroomError `model.unknown`, `model.in_use`, `device.lost`, `device.not_ready`
 */
export const unload = operation({
  ...brief,
  input: z.strictObject({ target: Target, model: ModelName, kind: ModelKind }),
  output: z
    .strictObject({
      device: z.string(),
      /** What went; nothing where it was not resident. */
      unloaded: z.array(z.strictObject({ id: z.string(), bytes: Count })),
      /** What the device has again; null where there is none but the CPU. */
      freedBytes: Count.nullable(),
    })
    .meta({ id: 'ModelUnloaded' }),
  async run({ target, model, kind }, tools) {
    const device = tools.device(target)
    const { models, freedBytes } = await device.dropModel(model, kind)
    await device.publish()
    return { device: device.device, unloaded: models, freedBytes }
  },
  command: {
    title: 'Unload a model',
    description: 'Lets go of a model on one device, unless a session uses it there; the answer names what went.',
    input: z.strictObject({
      model: ModelName,
      kind: ModelKind.describe('only what is of this kind; default: whatever has the name'),
      device: DeviceName.optional().describe('where; default: your default device, else the only one'),
    }),
    async resolve({ model, kind, device }, catalogue) {
      const { id } = await catalogue.named(model, kind ?? 'drawing')
      return { target: await catalogue.device(device, 'input.device'), model: id, kind }
    },
    route: {
      method: 'post',
      path: '/models/{model}/unload',
      query: ['kind'],
      body: 'UnloadModel',
      isBodyRequired: false,
      answers: 'What went',
    },
  },
})
