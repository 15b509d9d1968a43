import { z } from 'zod'
import { operation } from '../operation.ts'
import { Count } from '../values.ts'
import { Named, onDisk, shelved } from './on-disk.ts'

/**
 * Makes safetensors of a pickle, beside it; of a diffusers folder of those that a picture needs, one after another. The
 * pickles stay. Only where the operator of the host has opted in.
 * @throws DarkroomError `model.pickle_refused`, `model.not_converted`, `model.exists`, `model.unusable`
 */
export const convert = operation({
  ...onDisk,
  // Another look at the same bytes says the same; a worker that is lost does not count as a try.
  attempts: 1,
  timeoutMs: 2 * 3_600_000,
  output: z
    .strictObject({
      id: z.string(),
      path: z.string(),
      bytes: Count,
      tensors: Count,
      skipped: z.array(z.string()).describe('entries of the pickle that are no tensors, at most 20'),
    })
    .meta({ id: 'ModelConverted' }),
  run: async ({ model }, tools) => ({ id: model.id, ...(await tools.shelf.converted(model)) }),
  command: {
    title: 'Convert a pickle',
    description:
      'Makes safetensors of a single file that is a pickle, or of those of a diffusers folder, beside them, in a process of its own without GPU and network; refused unless the operator has set DARKROOM_PICKLES=convert on the workers of its host.',
    scope: 'operate',
    input: Named,
    resolve: shelved,
    route: { method: 'post', path: '/models/{model}/convert', query: ['kind'], answers: 'The file that was made, or the folder' },
  },
})
