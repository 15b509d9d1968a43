import { z } from 'zod'
import { operation } from '../operation.ts'
import { ModelPin, WantedModel } from '../values.ts'
import { wanted } from './named.ts'
import { Named } from './on-disk.ts'

/**
 * Computes the body hash of a model of any kind, which pins it: beside the device, once for all who ask, with progress
 * in bytes.
 * @throws DarkroomError `model.missing`, `model.unreadable`
 */
export const hash = operation({
  lane: 'host',
  attempts: 3,
  timeoutMs: 24 * 3_600_000,
  needs: ({ model }) => ({ models: [model] }),
  input: z.strictObject({ model: WantedModel }),
  output: z.strictObject({ model: ModelPin }).meta({ id: 'ModelHashed' }),
  async run({ model }, tools) {
    const { id, kind } = model
    const { bodyHash } = kind ? await tools.shelf.hashed({ id, kind, bodyHash: null }) : await tools.hashedModel(id)
    return { model: { id, bodyHash } }
  },
  command: {
    title: 'Hash a model',
    description:
      'Computes the hashes of a model of any kind ahead of the work, so that its first picture need not wait for it, and annotations may follow it.',
    input: Named,
    async resolve(given, catalogue) {
      const { vae: _, ...own } = await wanted(given, catalogue, (kind) => kind !== 'unknown')
      return { model: own }
    },
    route: { method: 'post', path: '/models/{model}/hash', query: ['kind'], answers: 'The pinned model' },
  },
})
