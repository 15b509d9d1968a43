/** Actions over many sessions as HTTP shows them. */
import { z } from 'zod'
import { BulkFilter, BulkTags, type BulkRecord } from '../../engine/bulk.ts'
import { bulkActions, bulkStates } from '../../engine/bulk-actions.ts'
import { iso, isoOrNull, orNull, Time } from '../view.ts'

const Filter = BulkFilter.refine((filter) => Object.keys(filter).length > 0, 'must say at least one of status, workflow, tag, parent')

export const CountSessions = z.strictObject({ filter: Filter }).meta({ id: 'CountSessions', example: { filter: { status: 'queued' } } })

export const AddBulk = z
  .strictObject({
    action: z.enum(bulkActions),
    filter: Filter,
    tags: BulkTags.optional().meta({ description: 'of the action `tag`: what to add and to remove' }),
  })
  .refine(({ action, tags }) => (action === 'tag') === (tags !== undefined), {
    path: ['tags'],
    message: 'belong to the action `tag`, and to no other',
  })
  .meta({ id: 'AddBulk', example: { action: 'cancel', filter: { status: 'queued', tag: 'nightly' } } })

export const SessionCount = z.strictObject({ count: z.int() }).meta({ id: 'SessionCount' })

export const BulkView = z
  .strictObject({
    id: z.string(),
    action: z.enum(bulkActions),
    filter: BulkFilter,
    tags: orNull(BulkTags),
    state: z.enum(bulkStates),
    total: z.int().meta({ description: 'sessions that the filter found when it was made' }),
    done: z.int(),
    failed: z.int().meta({ description: 'sessions that refused it' }),
    failures: z.array(z.strictObject({ session: z.string(), said: z.string() })).meta({ description: 'the last 20' }),
    keyId: z.string().nullable(),
    createdAt: Time,
    endedAt: Time.nullable(),
  })
  .meta({ id: 'Bulk' })

export const presentBulk = ({ createdAt, endedAt, ...record }: BulkRecord): z.infer<typeof BulkView> => ({
  ...record,
  createdAt: iso(createdAt),
  endedAt: isoOrNull(endedAt),
})
