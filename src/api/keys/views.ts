/** API keys as HTTP shows them. A key itself is shown when it is made, and never again. */
import { z } from 'zod'
import { scopes, usualScopes, type ApiKey } from '../../api-keys.ts'
import { iso, Time } from '../view.ts'

export const AddKey = z
  .strictObject({
    name: z.string().regex(/^[^\p{C}]{1,64}$/u, 'must be 1 to 64 printable characters'),
    scopes: z
      .array(z.enum(scopes))
      .min(1)
      .default([...usualScopes])
      .meta({ description: 'what it may do; no more than the caller may' }),
    weight: z.number().min(0.01).max(100).default(1).meta({ description: 'its share of the devices beside that of other keys' }),
  })
  .meta({ id: 'AddKey', example: { name: 'studio' } })

export const KeyView = z
  .strictObject({
    id: z.string(),
    name: z.string(),
    scopes: z.array(z.enum(scopes)),
    weight: z.number(),
    createdAt: Time,
    isOwn: z.boolean().meta({ description: 'the caller’s own' }),
  })
  .meta({ id: 'Key' })

export const KeyWithSecret = KeyView.extend({ key: z.string().meta({ description: '`dk_…`; shown this once' }) }).meta({
  id: 'KeyWithSecret',
})

export const presentKey = ({ createdAt, ...key }: ApiKey, own: string | null): z.infer<typeof KeyView> => ({
  ...key,
  createdAt: iso(createdAt),
  isOwn: key.id === own,
})
