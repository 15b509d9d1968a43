/** Items of a session as HTTP shows them. */
import { z } from 'zod'
import type { Item } from '../../engine/item-reads.ts'
import { statuses } from '../../engine/session.ts'
import { ArtifactLink, withLinks } from '../artifacts/views.ts'
import { ErrorView, presentError } from '../sessions/views.ts'
import { orNull } from '../view.ts'

export const itemStatuses = ['waiting', ...statuses] as const

export const ItemView = z
  .strictObject({
    index: z.int(),
    status: z.enum(itemStatuses).meta({ description: 'of its session; `waiting` before there is one' }),
    session: z.string().nullable(),
    input: z
      .record(z.string(), z.unknown())
      .meta({ description: 'what POST /v1/sessions takes as `input`: alone it gives the same bytes' }),
    progress: z.number().min(0).max(1).nullable(),
    output: z.looseObject({ images: z.array(ArtifactLink).optional() }).nullable(),
    error: orNull(ErrorView),
  })
  .meta({ id: 'Item' })

export const ItemPage = z.strictObject({ items: z.array(ItemView), next: z.string().nullable() }).meta({ id: 'ItemPage' })

export const presentItem = ({ output, error, ...item }: Item): z.infer<typeof ItemView> => ({
  ...item,
  output: output && withLinks(output),
  error: error && presentError(error),
})
