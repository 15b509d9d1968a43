/**
 * The memory of the devices of one backend: what `native.ts` gives, over the addon or in plain TypeScript, alike but
 * for speed.
 *
 * Sizes and offsets are bytes. An unknown figure is null, never 0. Ids are never used twice; fresh memory holds zeros,
 * never what its last owner left. An allocation goes with its release, its owner's, its time or the end of the memory,
 * whichever comes first; its id is invalid at once, and its memory goes back when the last copy that uses it has ended.
 */
import type { DarkroomError } from '../errors.ts'
import './device/errors.ts'
import './memory/errors.ts'
import { memoryError } from './memory/errors.ts'

export type BackendName = 'cuda' | 'd3d12' | 'host'
/** What kernels work on, or host memory that the device reads (upload) or writes (readback) at full speed. */
export type Kind = 'device' | 'upload' | 'readback'

export interface Device {
  /** The same for the same device in every process: `GPU-<uuid>`, `luid-<hex>`, `host`. */
  key: string
  name: string
  backend: BackendName
  /** By these Python's view of a device is matched with this one, never by index. */
  uuid: string | null
  luid: string | null
  /** Computed by the CPU. */
  software: boolean
  capabilities: {
    computeCapability: string | null
    featureLevel: string | null
    driver: string | null
    pci: string | null
    /** Device and host share one memory. */
    unified: boolean | null
  }
}

/** Of the whole device. */
export interface Figures {
  total: number | null
  /** What this process may use before the system takes memory away from it. */
  budget: number | null
  used: number | null
  /** Whether `used` counts this process alone. */
  usedIsOwn: boolean
  source: string
}

export interface Vitals {
  /** 0 to 1 */
  utilization: number | null
  /** Of the memory's bandwidth, 0 to 1. */
  memoryUtilization: number | null
  /** °C */
  temperature: number | null
  /** W */
  power: number | null
  powerLimit: number | null
  /** MHz */
  clock: number | null
  memoryClock: number | null
  source: string
}

/** Of a device that tells nothing. */
export const noVitals: Readonly<Vitals> = {
  utilization: null,
  memoryUtilization: null,
  temperature: null,
  power: null,
  powerLimit: null,
  clock: null,
  memoryClock: null,
  source: 'none',
}

/** What this process holds of a device. */
export interface Usage {
  /** Allocations. */
  live: number
  /** Bytes of the live ones of kind `device`, rounded up as the device does. */
  tracked: number
  /** Bytes of the device taken from the driver: `tracked`, and what is free in arenas. */
  reserved: number
  /** Bytes of the live ones of the other kinds: RAM, not the device's memory, and not under its limit. */
  pinned: number
  /** The highest `tracked`. */
  peak: number
  limit: number | null
  created: number
  released: number
  /** Of the released ones, those whose time was over. */
  expired: number
  arenas: number
  /** Of the arenas' free space: 0 in one piece, towards 1 in many. */
  fragmentation: number
  largestHole: number
  lost: boolean
}

export interface AllocationRequest {
  /** Index into `devices()`; 0. */
  device?: number
  bytes: number
  /** device */
  kind?: Kind
  /** Placed allocations share arenas and move when these are defragmented. By default the size decides. */
  placement?: 'automatic' | 'committed' | 'placed'
  /** Whose it is: a session or an API key. */
  owner: string
  /** None: until it is released. */
  timeToLiveMs?: number | null
}

export interface AllocationInfo {
  id: number
  device: number
  bytes: number
  kind: Kind
  placement: 'committed' | 'placed'
  owner: string
  ageMs: number
  timeLeftMs: number | null
  inUse: boolean
}

/** `await using` releases it at the end of the block, if nothing else has. */
export type Allocation = AllocationInfo & AsyncDisposable

export interface CopyOptions {
  /** Compare the CRC-32 of both sides afterwards; reads the device once more. */
  verify?: boolean
  signal?: AbortSignal
  /** At most 30 times a second, and once at the end. */
  onProgress?: (done: number, total: number) => void
}

export interface Compaction {
  moves: number
  bytesMoved: number
  /** 0 where the device maps the same memory elsewhere. */
  bytesCopied: number
  arenasFreed: number
  /** Fragmentation before and after, 0 to 1. */
  before: number
  after: number
}

/** Throws and rejects with DarkroomError `memory.*`, `device.lost`. No call blocks the event loop. */
export interface DeviceMemory extends AsyncDisposable {
  readonly implementation: 'addon' | 'typescript'
  readonly backend: BackendName
  devices(): Device[]
  figures(device: number): Promise<Figures>
  vitals(device: number): Promise<Vitals>
  usage(device: number): Usage
  /** The most that may be `tracked`; what is held already stays. null: as much as the driver gives. */
  setLimit(device: number, bytes: number | null): void
  allocate(request: AllocationRequest): Promise<Allocation>
  release(id: number): Promise<void>
  /** Releases all that an owner has; answers what that was. */
  releaseOwner(owner: string): Promise<AllocationInfo[]>
  /** From now on; null: for good. */
  renew(id: number, timeToLiveMs: number | null): void
  /** Releases what has outlived its time; answers what that was. Nothing expires by itself. */
  expire(): Promise<AllocationInfo[]>
  inspect(id: number): AllocationInfo
  list(): AllocationInfo[]
  /** The array's bytes must stay where they are, so it may not be transferred or resized before this settles. */
  write(id: number, bytes: Uint8Array, options?: CopyOptions & { at?: number }): Promise<void>
  /** Fills the array; the same holds for it. */
  read(id: number, into: Uint8Array, options?: CopyOptions & { at?: number }): Promise<void>
  /** Within a device or between two. */
  copy(range: { from: number; fromAt?: number; to: number; at?: number; bytes: number }, options?: CopyOptions): Promise<void>
  /** CRC-32 (IEEE) of a range. */
  checksum(id: number, range: { at?: number; bytes: number }, options?: Omit<CopyOptions, 'verify'>): Promise<number>
  /** Moves placed allocations that no copy uses, at most `maxBytes`, and lets emptied arenas go. */
  defragment(device: number, options?: Omit<CopyOptions, 'verify'> & { maxBytes?: number }): Promise<Compaction>
  /** Lets go of the pinned memory that copies keep between them. */
  trim(device: number): Promise<void>
  /** Cancels what runs, releases what is left, and answers what that was: the leaks. */
  close(): Promise<AllocationInfo[]>
}

export const invalid = (field: string, why: string): DarkroomError => memoryError('invalid', `${field} ${why}`, { field })

/** @throws DarkroomError `memory.invalid` for anything but a whole number from `least` on */
export function whole(field: string, value: unknown, least = 0): number {
  if (!Number.isSafeInteger(value) || (value as number) < least)
    throw invalid(field, `must be a whole number of at least ${least}, not ${String(value)}`)
  return value as number
}

/** @throws DarkroomError `memory.invalid` unless the bytes stay where they are while they are copied */
export function steady(field: string, bytes: unknown): Uint8Array {
  if (!(bytes instanceof Uint8Array)) throw invalid(field, 'must be a Uint8Array')
  if (!(bytes.buffer instanceof ArrayBuffer)) throw invalid(field, 'must not lie in a SharedArrayBuffer')
  if ((bytes.buffer as ArrayBuffer & { resizable?: boolean }).resizable) throw invalid(field, 'must not lie in a resizable ArrayBuffer')
  if (bytes.byteLength === 0) throw invalid(field, 'must hold at least 1 byte')
  return bytes
}

/** A request with its defaults, checked. @throws DarkroomError `memory.invalid` */
export function complete(request: AllocationRequest): Required<AllocationRequest> {
  const { device = 0, bytes, kind = 'device', placement = 'automatic', owner, timeToLiveMs = null } = request
  if (!['device', 'upload', 'readback'].includes(kind)) throw invalid('kind', `must be device, upload or readback, not ${kind}`)
  if (!['automatic', 'committed', 'placed'].includes(placement))
    throw invalid('placement', `must be automatic, committed or placed, not ${placement}`)
  if (placement === 'placed' && kind !== 'device') throw invalid('placement', 'can be placed only for kind device')
  if (typeof owner !== 'string' || owner === '') throw invalid('owner', 'must name whose it is')
  whole('device', device)
  whole('bytes', bytes, 1)
  if (timeToLiveMs !== null) whole('timeToLiveMs', timeToLiveMs, 1)
  return { device, bytes, kind, placement, owner, timeToLiveMs }
}
