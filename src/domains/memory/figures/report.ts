/**
 * The memory of a device as its worker publishes it. Bytes; instants by the worker's own clock; what is unknown is
 * null.
 */
import { z } from 'zod'
import { loadable } from '../../../models/families.ts'
import type * as Native from '../../device-memory.ts'
import { AllocationId, Count, Fraction, Instant } from '../../values.ts'

export const Figures = z.strictObject({
  total: Count.nullable(),
  budget: Count.nullable(),
  used: Count.nullable(),
  usedIsOwn: z.boolean(),
  source: z.string(),
}) satisfies z.ZodType<Native.Figures>

export const Usage = z.strictObject({
  live: Count,
  tracked: Count,
  reserved: Count,
  pinned: Count,
  peak: Count,
  limit: Count.nullable(),
  created: Count,
  released: Count,
  expired: Count,
  arenas: Count,
  fragmentation: Fraction,
  largestHole: Count,
  lost: z.boolean(),
}) satisfies z.ZodType<Native.Usage>

export const Kind = z.enum(['device', 'upload', 'readback'])
export const Placement = z.enum(['automatic', 'committed', 'placed'])

/** An allocation as everybody sees it. */
export const AllocationView = z
  .strictObject({
    id: AllocationId,
    device: z.string(),
    bytes: Count,
    kind: Kind,
    placement: z.enum(['committed', 'placed']),
    /** A session's id, or `key:<id>`, `key:local`. */
    owner: z.string(),
    createdAt: Instant,
    expiresAt: Instant.nullable(),
    inUse: z.boolean(),
  })
  .meta({ id: 'Allocation' })
export type AllocationView = z.infer<typeof AllocationView>

/**
 * System RAM: of the machine, of which `budget` is what this process may use, and `rss` what it and its Python child
 * hold.
 */
export const Ram = z.strictObject({
  total: Count,
  available: Count.nullable(),
  used: Count.nullable(),
  rss: Count,
  source: z.string(),
})
export type Ram = z.infer<typeof Ram>

/**
 * A network on the device, which comes and goes by itself; `patchedBy`: LoRAs and their kin that are in its weights
 * now, in their order. A worker of an earlier version says nothing of these.
 */
export const ResidentPart = z.strictObject({
  name: z.string(),
  bytes: Count,
  patchedBy: z.array(z.strictObject({ id: z.string(), weight: z.number() })).optional(),
})

/** What the Python child holds, by its own figures. */
export const PythonMemory = z.strictObject({
  /** In tensors. */
  allocatedBytes: Count.nullable(),
  /** Taken from the device: tensors, and what its allocator keeps. */
  reservedBytes: Count.nullable(),
  models: z.array(
    z.strictObject({
      id: z.string(),
      /** How it is loaded; a worker of an earlier version does not say. */
      family: z.enum(loadable).optional(),
      bytes: Count.nullable(),
      isIdle: z.boolean(),
      /** Its networks that are on the device. */
      parts: z.array(ResidentPart),
    }),
  ),
})
export type PythonMemory = z.infer<typeof PythonMemory>

export const levels = ['ok', 'elevated', 'high', 'critical'] as const

/** Of one pool. What can be dropped at once (`evictable`) does not press. */
export const Pressure = z
  .strictObject({
    level: z.enum(levels),
    /** (used - evictable) / total */
    fraction: z.number().min(0).nullable(),
    used: Count.nullable(),
    evictable: Count,
    total: Count.nullable(),
    /** Since when this level holds. */
    since: Instant,
    /** The last relief step, in words. */
    rung: z.string().nullable(),
  })
  .meta({ id: 'MemoryPressure' })
export type Pressure = z.infer<typeof Pressure>

const Leaks = z.strictObject({ count: Count, bytes: Count })

/**
 * Allocations that outlived what they were for and were reclaimed, since the worker started; and those that look as if
 * they will.
 */
export const LeakReport = z.strictObject({
  ...Leaks.shape,
  /** `expired`: their time was over before anybody released them. `orphaned`: their owner had ended. */
  byReason: z.strictObject({ expired: Leaks, orphaned: Leaks }),
  /** The newest first, twenty at most. */
  newest: z.array(
    z.strictObject({
      id: AllocationId,
      owner: z.string(),
      bytes: Count,
      kind: Kind,
      reason: z.enum(['expired', 'orphaned']),
      ageMs: Count,
      foundAt: Instant,
    }),
  ),
  /** Live ones without a use or renewal for an hour: the longest first, twenty at most. */
  suspects: z.array(z.strictObject({ id: AllocationId, owner: z.string(), bytes: Count, kind: Kind, unusedMs: Count })),
})
export type LeakReport = z.infer<typeof LeakReport>

export const MemoryReport = z.strictObject({
  figures: Figures,
  usage: Usage,
  ram: Ram,
  /** null while no child runs. */
  python: PythonMemory.nullable(),
  pressure: z.strictObject({ device: Pressure, ram: Pressure }),
  /** The newest first, 200 at most; `allocationCount` counts all. */
  allocations: z.array(AllocationView),
  allocationCount: Count,
  leaks: LeakReport,
})
export type MemoryReport = z.infer<typeof MemoryReport>

// ---- analytics: what a worker publishes beside its record, every few seconds ----

/**
 * The highest of each step, in columns of one length: `at` is where a step begins. A step without a sample is left out.
 */
export const Series = z.strictObject({
  stepMs: Count,
  at: z.array(Count),
  used: z.array(Count.nullable()),
  /** Of the pool, what cannot be dropped at once; over 1 where more is used than the budget. */
  fraction: z.array(z.number().min(0).nullable()),
  evictable: z.array(Count),
  tracked: z.array(Count),
  reserved: z.array(Count),
  fragmentation: z.array(Fraction),
})
export type Series = z.infer<typeof Series>

/** How many fell into `from` ≤ value < `to`; each is twice as wide as the one before, empty ones are left out. */
export const Histogram = z.array(z.strictObject({ from: Count, to: Count, count: z.int().min(1) }))
export type Histogram = z.infer<typeof Histogram>

const Peak = z.strictObject({ bytes: Count, at: Count })
/** Of all owners of one kind: what they hold now, and what they have had since the worker started. */
const OwnerTotals = z.strictObject({
  bytes: Count,
  allocated: Count,
  allocatedBytes: Count,
  released: Count,
  expired: Count,
  orphaned: Count,
})

export const Recommendation = z.strictObject({
  code: z.enum(['memory.defragment', 'memory.leak_suspected', 'memory.near_limit', 'memory.evict_models']),
  /** What leads to it, and what to do: sentences with the figures in them. */
  message: z.string(),
  /** A workflow that does it, where there is one. */
  workflow: z.string().nullable(),
  /** Whom it concerns, where it is one owner. */
  owner: z.string().nullable(),
  figures: z.record(z.string(), z.number()),
})
export type Recommendation = z.infer<typeof Recommendation>

/** Since the worker started, of its device; milliseconds since 1970 by the worker's clock, bytes. */
export const MemoryAnalytics = z.strictObject({
  since: Count,
  sampledAt: Count,
  samples: Count,
  total: Count.nullable(),
  /** From fine to coarse: 1 s over 5 minutes, 10 s over an hour, 5 minutes over a day. */
  series: z.array(Series),
  /** null before there was any. */
  peaks: z.strictObject({ used: Peak.nullable(), tracked: Peak.nullable(), reserved: Peak.nullable() }),
  fragmentation: z.strictObject({ now: Fraction, highest: Fraction, largestHole: Count, free: Count }),
  sizes: Histogram,
  /** Of those that share arenas. */
  placedSizes: Histogram,
  /** ms, from allocation to end. */
  lifetimes: Histogram,
  totals: z.strictObject({ session: OwnerTotals, key: OwnerTotals }),
  /** Owners most of whose allocations ended by their time, ten at most. */
  expiring: z.array(z.strictObject({ owner: z.string(), ended: Count, expired: Count, bytes: Count })),
  refusals: z.strictObject({
    count: Count,
    byCode: z.record(z.string(), Count),
    /** The newest first, twenty at most; `idleModelBytes`: what idle models held then. */
    newest: z.array(z.strictObject({ at: Count, code: z.string(), bytes: Count, idleModelBytes: Count })),
  }),
  recommendations: z.array(Recommendation),
})
export type MemoryAnalytics = z.infer<typeof MemoryAnalytics>
