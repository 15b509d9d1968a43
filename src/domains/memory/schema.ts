import { z } from 'zod'
import type * as Native from '../device-memory.ts'
import { Target } from '../operation.ts'

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

/** Allocations that outlived what they were for and were reclaimed, since the worker started. */
export const LeakReport = z.strictObject({
  count: Whole,
  bytes: Whole,
  /** The newest first, twenty at most. */
  newest: z.array(z.strictObject({ id: AllocationId, owner: z.string(), bytes: Whole, kind: Kind, ageMs: Whole, foundAt: Whole })),
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
  /** null where no child runs. */
  python: z.strictObject({ freedBytes: Whole.nullable() }).nullable(),
})
export type DefragmentOutput = z.infer<typeof DefragmentOutput>
