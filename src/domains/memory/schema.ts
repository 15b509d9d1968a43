import { z } from 'zod'
import type * as Native from '../device-memory.ts'
import { Target } from '../values.ts'

const Whole = z.int().min(0)
const Fraction = z.number().min(0).max(1)

// ---- what a worker publishes; milliseconds since 1970 by its own clock, unknown is null ----

export const Figures = z.strictObject({
  total: Whole.nullable(),
  budget: Whole.nullable(),
  used: Whole.nullable(),
  usedIsOwn: z.boolean(),
  source: z.string(),
}) satisfies z.ZodType<Native.Figures>

export const Usage = z.strictObject({
  live: Whole,
  tracked: Whole,
  reserved: Whole,
  pinned: Whole,
  peak: Whole,
  limit: Whole.nullable(),
  created: Whole,
  released: Whole,
  expired: Whole,
  arenas: Whole,
  fragmentation: Fraction,
  largestHole: Whole,
  lost: z.boolean(),
}) satisfies z.ZodType<Native.Usage>

export const Kind = z.enum(['device', 'upload', 'readback'])
export const Placement = z.enum(['automatic', 'committed', 'placed'])

/** `<deviceId>.<first 8 hex of the device epoch>.<n>`: unique in the farm, and never used twice. */
export const AllocationId = z
  .string()
  .regex(/^[a-z0-9-]{1,120}\.[0-9a-f]{8}\.\d{1,15}$/, 'must be the id of an allocation, as GET /v1/memory/allocations gives it')

/** An allocation as everybody sees it. */
export const AllocationView = z.strictObject({
  id: AllocationId,
  device: z.string(),
  bytes: Whole,
  kind: Kind,
  placement: z.enum(['committed', 'placed']),
  /** A session's id, or `key:<id>`, `key:local`. */
  owner: z.string(),
  createdAt: Whole,
  expiresAt: Whole.nullable(),
  inUse: z.boolean(),
})
export type AllocationView = z.infer<typeof AllocationView>

/** System RAM: of the machine, of which `budget` is what this process may use, and `rss` what it and its Python child hold. */
export const Ram = z.strictObject({
  total: Whole,
  available: Whole.nullable(),
  used: Whole.nullable(),
  rss: Whole,
  source: z.string(),
})
export type Ram = z.infer<typeof Ram>

/** What the Python child holds, by its own figures. */
export const PythonMemory = z.strictObject({
  /** In tensors. */
  allocatedBytes: Whole.nullable(),
  /** Taken from the device: tensors, and what its allocator keeps. */
  reservedBytes: Whole.nullable(),
  models: z.array(z.strictObject({ id: z.string(), bytes: Whole.nullable(), isIdle: z.boolean() })),
})
export type PythonMemory = z.infer<typeof PythonMemory>

export const levels = ['ok', 'elevated', 'high', 'critical'] as const

/** Of one pool. What can be dropped at once (`evictable`) does not press. */
export const Pressure = z.strictObject({
  level: z.enum(levels),
  /** (used - evictable) / total */
  fraction: z.number().min(0).nullable(),
  used: Whole.nullable(),
  evictable: Whole,
  total: Whole.nullable(),
  /** Since when this level holds. */
  since: Whole,
  /** What the ladder did last to relieve it. */
  rung: z.string().nullable(),
})
export type Pressure = z.infer<typeof Pressure>

const Leaks = z.strictObject({ count: Whole, bytes: Whole })

/** Allocations that outlived what they were for and were reclaimed, since the worker started; and those that look as if they will. */
export const LeakReport = z.strictObject({
  ...Leaks.shape,
  /** `expired`: their time was over before anybody released them. `orphaned`: their owner had ended. */
  byReason: z.strictObject({ expired: Leaks, orphaned: Leaks }),
  /** The newest first, twenty at most. */
  newest: z.array(
    z.strictObject({
      id: AllocationId,
      owner: z.string(),
      bytes: Whole,
      kind: Kind,
      reason: z.enum(['expired', 'orphaned']),
      ageMs: Whole,
      foundAt: Whole,
    }),
  ),
  /** Live ones that nobody was seen to use or renew for an hour: the longest first, twenty at most. */
  suspects: z.array(z.strictObject({ id: AllocationId, owner: z.string(), bytes: Whole, kind: Kind, unusedMs: Whole })),
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
  allocationCount: Whole,
  leaks: LeakReport,
})
export type MemoryReport = z.infer<typeof MemoryReport>

// ---- analytics: what a worker publishes beside its record, every few seconds ----

/** The highest of each step, in columns of one length: `at` is where a step begins. A step without a sample is left out. */
export const Series = z.strictObject({
  stepMs: Whole,
  at: z.array(Whole),
  used: z.array(Whole.nullable()),
  /** Of the pool, what cannot be dropped at once; over 1 where more is used than the budget. */
  fraction: z.array(z.number().min(0).nullable()),
  evictable: z.array(Whole),
  tracked: z.array(Whole),
  reserved: z.array(Whole),
  fragmentation: z.array(Fraction),
})
export type Series = z.infer<typeof Series>

/** How many fell into `from` ≤ value < `to`; each is twice as wide as the one before, empty ones are left out. */
export const Histogram = z.array(z.strictObject({ from: Whole, to: Whole, count: z.int().min(1) }))
export type Histogram = z.infer<typeof Histogram>

const Peak = z.strictObject({ bytes: Whole, at: Whole })
/** Of all owners of one kind: what they hold now, and what they have had since the worker started. */
const OwnerTotals = z.strictObject({
  bytes: Whole,
  allocated: Whole,
  allocatedBytes: Whole,
  released: Whole,
  expired: Whole,
  orphaned: Whole,
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
  since: Whole,
  sampledAt: Whole,
  samples: Whole,
  total: Whole.nullable(),
  /** From fine to coarse: 1 s over 5 minutes, 10 s over an hour, 5 minutes over a day. */
  series: z.array(Series),
  /** null before there was any. */
  peaks: z.strictObject({ used: Peak.nullable(), tracked: Peak.nullable(), reserved: Peak.nullable() }),
  fragmentation: z.strictObject({ now: Fraction, highest: Fraction, largestHole: Whole, free: Whole }),
  sizes: Histogram,
  /** Of those that share arenas. */
  placedSizes: Histogram,
  /** ms, from allocation to end. */
  lifetimes: Histogram,
  totals: z.strictObject({ session: OwnerTotals, key: OwnerTotals }),
  /** Owners most of whose allocations ended by their time, ten at most. */
  expiring: z.array(z.strictObject({ owner: z.string(), ended: Whole, expired: Whole, bytes: Whole })),
  refusals: z.strictObject({
    count: Whole,
    byCode: z.record(z.string(), Whole),
    /** The newest first, twenty at most; `idleModelBytes`: what idle models held then. */
    newest: z.array(z.strictObject({ at: Whole, code: z.string(), bytes: Whole, idleModelBytes: Whole })),
  }),
  recommendations: z.array(Recommendation),
})
export type MemoryAnalytics = z.infer<typeof MemoryAnalytics>

// ---- operations ----

const Bytes = z.int().min(1)
const Checksum = z.string().regex(/^[0-9a-f]{8}$/)
const Hash = z.string().regex(/^[0-9a-f]{64}$/)
/** Its workflow lets it touch what others own. */
const asOperator = z.boolean().default(false)
/** From now on; null: as long as its owner. At most a day. */
const timeToLiveMs = z.int().min(1).max(86_400_000).nullable()
const Made = z.strictObject({ kind: Kind, placement: Placement, ownedBy: z.enum(['session', 'key']).default('session'), timeToLiveMs })

/** `ownedBy`: the session whose step it is, or the API key that submitted the session. */
export const AllocateInput = Made.extend({ target: Target, bytes: Bytes })
export type AllocateInput = z.infer<typeof AllocateInput>

export const ReleaseInput = z.strictObject({ target: Target, id: AllocationId, asOperator })
export type ReleaseInput = z.infer<typeof ReleaseInput>
export const ReleaseOutput = z.strictObject({ id: AllocationId, bytes: Whole })
export type ReleaseOutput = z.infer<typeof ReleaseOutput>

export const RenewInput = z.strictObject({ target: Target, id: AllocationId, timeToLiveMs, asOperator })
export type RenewInput = z.infer<typeof RenewInput>

/** `bytes` null: as much as both ranges hold. */
export const CopyInput = z.strictObject({
  target: Target,
  from: AllocationId,
  fromAt: Whole,
  to: AllocationId,
  at: Whole,
  bytes: Bytes.nullable(),
  verify: z.boolean(),
  asOperator,
})
export type CopyInput = z.infer<typeof CopyInput>
/** `crc32` of what arrived, where it was verified. */
export const CopyOutput = z.strictObject({ bytes: Bytes, seconds: z.number(), crc32: Checksum.nullable() })
export type CopyOutput = z.infer<typeof CopyOutput>

/** `bytes` null: to the end. */
const Range = z.strictObject({ target: Target, id: AllocationId, at: Whole, bytes: Bytes.nullable(), asOperator })
export const ChecksumInput = Range
export type ChecksumInput = z.infer<typeof ChecksumInput>
/** CRC-32 (IEEE). */
export const ChecksumOutput = z.strictObject({ id: AllocationId, at: Whole, bytes: Bytes, crc32: Checksum })
export type ChecksumOutput = z.infer<typeof ChecksumOutput>

export const ReadInput = Range
export type ReadInput = z.infer<typeof ReadInput>
/** `chunks`: scratch artifacts that together are the range. */
export const ReadOutput = z.strictObject({ bytes: Bytes, crc32: Checksum, chunks: z.array(Hash) })
export type ReadOutput = z.infer<typeof ReadOutput>

/** `to` null: a new allocation is made, as `make` says. */
export const WriteInput = z.strictObject({
  target: Target,
  to: AllocationId.nullable(),
  make: Made.nullable(),
  at: Whole,
  bytes: Bytes,
  crc32: Checksum,
  chunks: z.array(Hash),
  verify: z.boolean(),
  asOperator,
})
export type WriteInput = z.infer<typeof WriteInput>
export const WriteOutput = z.strictObject({ allocation: AllocationView, bytes: Bytes, crc32: Checksum })
export type WriteOutput = z.infer<typeof WriteOutput>

export const DefragmentInput = z.strictObject({ target: Target, maxBytes: Bytes.nullable() })
export type DefragmentInput = z.infer<typeof DefragmentInput>
/** The worker's own allocations really move (`compaction`); Python's pool is emptied, not moved. */
export const DefragmentOutput = z.strictObject({
  compaction: z.strictObject({
    moves: Whole,
    bytesMoved: Whole,
    bytesCopied: Whole,
    arenasFreed: Whole,
    before: Fraction,
    after: Fraction,
  }) satisfies z.ZodType<Native.Compaction>,
  /** null where no child runs, or a step keeps it from it until that ends. */
  python: z.strictObject({ freedBytes: Whole.nullable() }).nullable(),
})
export type DefragmentOutput = z.infer<typeof DefragmentOutput>
