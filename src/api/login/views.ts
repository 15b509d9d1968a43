/** Who looks at the page. */
import { z } from 'zod'
import { scopes } from '../../api-keys.ts'

export const LoginBody = z.strictObject({ key: z.string().min(1).max(200) }).meta({ id: 'Login' })

export const CallerView = z
  .strictObject({
    keyId: z.string().nullable().meta({ description: 'of the API key; null: the user of this machine, of a farm without keys' }),
    scopes: z.array(z.enum(scopes)).meta({ description: 'what the caller may do' }),
  })
  .meta({ id: 'Caller' })
