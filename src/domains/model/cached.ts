/** The cache of model weights in a worker's RAM, as it tells of it. Bytes; instants by the worker's own clock. */
import { z } from 'zod'
import { kinds } from '../../models/verdict.ts'
import { Count, Fraction, Instant, Sha256 } from '../values.ts'

export const CachedModel = z.strictObject({
  id: z.string(),
  kind: z.enum(kinds),
  bodyHash: Sha256,
  bytes: Count,
  /** Loads that read it from there. */
  uses: Count,
  cachedAt: Instant,
  usedAt: Instant,
})
export type CachedModel = z.infer<typeof CachedModel>

export const ModelCacheReport = z
  .strictObject({
    /** The most that it may hold now; 0: it is off. */
    limit: Count,
    bytes: Count,
    /** Loads that it had the model for, and those that it had not. */
    hits: Count,
    misses: Count,
    /** Of both; null before the first load. */
    hitRate: Fraction.nullable(),
    /** Models that were read into it, and that it let go of, since the worker started. */
    filled: Count,
    evicted: Count,
    evictedBytes: Count,
    /** Of these: for another model's sake, for want of RAM, by a command, because their files changed. */
    evictedFor: z.strictObject({ limit: Count, pressure: Count, asked: Count, changed: Count }),
    /** Models that are being read. */
    reading: z.array(z.strictObject({ bytes: Count, read: Count })),
    /** The one used longest ago first, which goes first. */
    models: z.array(CachedModel),
  })
  .meta({ id: 'ModelCache' })
export type ModelCacheReport = z.infer<typeof ModelCacheReport>
