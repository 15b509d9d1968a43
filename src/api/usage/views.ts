/** What sessions and API keys have used, as HTTP shows it. */
import { z } from 'zod'
import { Count } from '../../domains/values.ts'
import { keptDays, type DayOfKey, type Use } from '../../engine/usage.ts'

export const UseView = z
  .strictObject({
    deviceS: z.number().min(0).meta({ description: 'seconds in which attempts had devices' }),
    lostS: z
      .number()
      .min(0)
      .meta({ description: 'of these what came to nothing and was done again: since the last checkpoint of a lost or failed attempt' }),
    keptBytes: Count.meta({ description: 'of the pictures that its steps made' }),
    scratchBytes: Count.meta({ description: 'of what one step left for the next' }),
    cacheHits: Count.meta({ description: 'steps whose model was on the device' }),
    cacheMisses: Count.meta({ description: 'steps that loaded it first' }),
  })
  .meta({ id: 'Use' })

export const UsageView = z
  .strictObject({
    deviceSPerDay: z.int().nullable().meta({ description: 'seconds of devices that each key may have in a day; null: no limit' }),
    days: z
      .array(
        z.strictObject({
          day: z.iso.date().meta({ description: 'UTC' }),
          keyId: z.string().nullable().meta({ description: 'null: programs without a key' }),
          sessions: Count.meta({ description: 'that have ended' }),
          ...UseView.shape,
        }),
      )
      .meta({ description: 'days on which a key has used anything, the newest first' }),
  })
  .meta({ id: 'Usage', description: `the newest ${keptDays} days are kept` })

export const presentUse = ({ ms, lost, kept, scratch, hits, misses }: Use): z.infer<typeof UseView> => ({
  deviceS: ms / 1000,
  // What was counted as lost before midnight may have been none of it after.
  lostS: Math.max(0, lost) / 1000,
  keptBytes: kept,
  scratchBytes: scratch,
  cacheHits: hits,
  cacheMisses: misses,
})

export const presentUsage = (days: readonly DayOfKey[], deviceS: number): z.infer<typeof UsageView> => ({
  deviceSPerDay: deviceS === 0 ? null : deviceS,
  days: days.map(({ day, keyId, sessions, ...use }) => ({ day, keyId, sessions, ...presentUse(use) })),
})
