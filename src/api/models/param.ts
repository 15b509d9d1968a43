/** A model in a path. */
import { z } from 'zod'
import { ModelName } from '../../domains/values.ts'

export const modelParam = z.object({
  model: ModelName.meta({ param: { name: 'model', in: 'path' }, description: 'its id, URL-encoded' }),
})
