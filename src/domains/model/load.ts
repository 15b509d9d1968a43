import { z } from 'zod'
import { operation } from '../operation.ts'
import { Count, ModelName, WantedModel } from '../values.ts'

const input = z.strictObject({ model: WantedModel })
const output = z.strictObject({ id: z.string(), bytes: Count }).meta({ id: 'ModelLoaded' })

/**
 * Makes a model resident on a device ahead of the work; `bytes` of its weights there. One that was not hashed is,
 * before.
 * @throws DarkroomError `model.corrupt`, `model.load_failed`, `model.missing`, `model.unreadable`
 */
export const load = operation({
  lane: 'gpu',
  attempts: 3,
  timeoutMs: 3_600_000,
  needs: ({ model }) => ({ models: [model] }),
  input,
  output,
  python: { input, output },
  run: async (request, tools) => output.parse((await tools.python(request, {})).output),
  command: {
    title: 'Load a model',
    description: 'Makes a model resident on a device ahead of the work, so that the next picture need not wait for it.',
    input: z.strictObject({ model: ModelName }),
    async resolve({ model }, catalogue) {
      const { id, bodyHash } = await catalogue.model(model)
      return { model: { id, bodyHash } }
    },
    route: { method: 'post', path: '/models/{model}/load', answers: 'The model' },
  },
})
