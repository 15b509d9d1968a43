/**
 * System RAM as a device, in plain TypeScript: what a worker has where the addon is not built. Every allocation is an
 * ArrayBuffer of its own, so nothing is placed and nothing fragments. Copies are made one after another, in pieces that
 * let the event loop run between them.
 */
import { setImmediate } from 'node:timers/promises'
import { crc32 } from 'node:zlib'
import { DarkroomError } from '../../errors.ts'
import {
  complete,
  invalid,
  noVitals,
  steady,
  whole,
  type Allocation,
  type AllocationInfo,
  type AllocationRequest,
  type Compaction,
  type CopyOptions,
  type Device,
  type DeviceMemory,
  type Figures,
  type Usage,
  type Vitals,
} from '../../domains/device-memory.ts'
import { memoryError } from '../../domains/memory/errors.ts'
import { systemRam } from './ram.ts'

/** About a millisecond of copying. */
const pieceBytes = 4 << 20
const progressEveryMs = 34

interface HeldMemory extends Omit<Required<AllocationRequest>, 'placement' | 'timeToLiveMs'> {
  id: number
  memory: Uint8Array
  createdAt: number
  expiresAt: number | null
  uses: number
  isReleased: boolean
}

type Piece = (offset: number, bytes: number) => void

/** Of system RAM as a device, whoever holds it. */
export function hostFigures(): Figures {
  const { limit, source, total, used } = systemRam()
  return { total, budget: limit, used, usedIsOwn: false, source }
}

export class HostMemory implements DeviceMemory {
  readonly implementation = 'typescript'
  readonly backend = 'host'
  readonly #held = new Map<number, HeldMemory>()
  readonly #counts = { created: 0, released: 0, expired: 0, peak: 0, tracked: 0, pinned: 0 }
  readonly #ending = new AbortController()
  #limit: number | null = null
  #nextId = 1
  /** Ends when the last copy does. */
  #copying: Promise<unknown> = Promise.resolve()

  devices(): Device[] {
    return [
      {
        key: 'host',
        name: 'system memory',
        backend: 'host',
        uuid: null,
        luid: null,
        software: true,
        capabilities: { computeCapability: null, featureLevel: null, driver: null, pci: null, unified: true },
      },
    ]
  }

  async figures(device: number): Promise<Figures> {
    this.#refuse(device)
    return hostFigures()
  }

  async vitals(device: number): Promise<Vitals> {
    this.#refuse(device)
    return { ...noVitals }
  }

  usage(device: number): Usage {
    this.#checkDevice(device)
    const { created, released, expired, peak, tracked, pinned } = this.#counts
    const nothing = { arenas: 0, fragmentation: 0, largestHole: 0, lost: false }
    return { live: this.#held.size, tracked, reserved: tracked, pinned, peak, limit: this.#limit, created, released, expired, ...nothing }
  }

  setLimit(device: number, bytes: number | null): void {
    this.#checkDevice(device)
    this.#limit = bytes === null ? null : whole('limit', bytes)
  }

  async allocate(request: AllocationRequest): Promise<Allocation> {
    const { device, bytes, kind, placement, owner, timeToLiveMs } = complete(request)
    this.#refuse(device)
    if (placement === 'placed') throw invalid('placement', 'cannot be placed: the native addon is not built')
    const counts = this.#counts
    const { total, used } = systemRam()
    const free = Math.max(0, total - used)
    if (kind === 'device' && this.#limit !== null && counts.tracked + bytes > this.#limit)
      throw exhausted(`${bytes} bytes would pass the limit of ${this.#limit}; ${counts.tracked} are held already`)
    if (bytes > free) throw exhausted(`${bytes} bytes are more than the ${free} that are free`)
    let memory: Uint8Array
    try {
      memory = new Uint8Array(bytes)
    } catch {
      throw exhausted(`Node cannot make an array of ${bytes} bytes`)
    }
    const now = performance.now()
    const id = this.#nextId++
    const expiresAt = timeToLiveMs === null ? null : now + timeToLiveMs
    const held = { id, device, bytes, kind, owner, memory, createdAt: now, expiresAt, uses: 0, isReleased: false }
    this.#held.set(id, held)
    counts.created++
    this.#count(held, bytes)
    counts.peak = Math.max(counts.peak, counts.tracked)
    return disposable(this, describe(held))
  }

  async release(id: number): Promise<void> {
    this.#forget(this.#find(id))
  }

  async releaseOwner(owner: string): Promise<AllocationInfo[]> {
    if (typeof owner !== 'string' || owner === '') throw invalid('owner', 'must name whose they are')
    return this.#releaseThose((held) => held.owner === owner)
  }

  renew(id: number, timeToLiveMs: number | null): void {
    const expiresAt = timeToLiveMs === null ? null : performance.now() + whole('timeToLiveMs', timeToLiveMs, 1)
    this.#find(id).expiresAt = expiresAt
  }

  async expire(): Promise<AllocationInfo[]> {
    const now = performance.now()
    const gone = this.#releaseThose(({ expiresAt }) => expiresAt !== null && expiresAt <= now)
    this.#counts.expired += gone.length
    return gone
  }

  inspect(id: number): AllocationInfo {
    return describe(this.#find(id))
  }

  list(): AllocationInfo[] {
    return [...this.#held.values()].map(describe)
  }

  async write(id: number, bytes: Uint8Array, options: CopyOptions & { at?: number } = {}): Promise<void> {
    const { at = 0, ...copy } = options
    const held = this.#find(id)
    within(held, at, steady('bytes', bytes).byteLength)
    await this.#run([held], bytes.byteLength, copy, (offset, size) => {
      held.memory.set(bytes.subarray(offset, offset + size), at + offset)
    })
    if (copy.verify) compare(crc32(bytes), crc32(held.memory.subarray(at, at + bytes.byteLength)))
  }

  async read(id: number, into: Uint8Array, options: CopyOptions & { at?: number } = {}): Promise<void> {
    const { at = 0, ...copy } = options
    const held = this.#find(id)
    within(held, at, steady('into', into).byteLength)
    await this.#run([held], into.byteLength, copy, (offset, size) => {
      into.set(held.memory.subarray(at + offset, at + offset + size), offset)
    })
    if (copy.verify) compare(crc32(held.memory.subarray(at, at + into.byteLength)), crc32(into))
  }

  async copy(range: { from: number; fromAt?: number; to: number; at?: number; bytes: number }, options: CopyOptions = {}): Promise<void> {
    const { from, fromAt = 0, to, at = 0, bytes } = range
    const source = this.#find(from)
    const target = this.#find(to)
    within(source, fromAt, bytes)
    within(target, at, bytes)
    if (from === to && fromAt < at + bytes && at < fromAt + bytes)
      throw memoryError('out_of_range', `the two ranges overlap inside allocation ${from}`, { field: 'at' })
    await this.#run([source, target], bytes, options, (offset, size) => {
      target.memory.set(source.memory.subarray(fromAt + offset, fromAt + offset + size), at + offset)
    })
    if (options.verify) compare(crc32(source.memory.subarray(fromAt, fromAt + bytes)), crc32(target.memory.subarray(at, at + bytes)))
  }

  async checksum(id: number, range: { at?: number; bytes: number }, options: Omit<CopyOptions, 'verify'> = {}): Promise<number> {
    const { at = 0, bytes } = range
    const held = this.#find(id)
    within(held, at, bytes)
    let sum = 0
    await this.#run([held], bytes, options, (offset, size) => {
      sum = crc32(held.memory.subarray(at + offset, at + offset + size), sum)
    })
    return sum
  }

  async defragment(device: number, options: Omit<CopyOptions, 'verify'> & { maxBytes?: number } = {}): Promise<Compaction> {
    this.#refuse(device)
    if (options.maxBytes !== undefined) whole('maxBytes', options.maxBytes)
    return { moves: 0, bytesMoved: 0, bytesCopied: 0, arenasFreed: 0, before: 0, after: 0 }
  }

  async trim(device: number): Promise<void> {
    this.#refuse(device)
  }

  async close(): Promise<AllocationInfo[]> {
    if (this.#ending.signal.aborted) return []
    this.#ending.abort()
    await this.#copying.catch(() => {})
    const leaks = this.list()
    for (const held of this.#held.values()) this.#forget(held)
    return leaks
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** Copies piece by piece, after the copies before it. */
  async #run(uses: HeldMemory[], total: number, { signal, onProgress }: CopyOptions, piece: Piece): Promise<void> {
    const stop = AbortSignal.any([this.#ending.signal, ...(signal ? [signal] : [])])
    for (const held of uses) held.uses++
    const before = this.#copying
    const copy = (async () => {
      await before.catch(() => {})
      let toldAt = performance.now()
      for (let done = 0; done < total;) {
        if (stop.aborted) throw memoryError('cancelled', 'the copy was cancelled')
        const size = Math.min(pieceBytes, total - done)
        piece(done, size)
        done += size
        if (done === total || performance.now() - toldAt >= progressEveryMs) {
          toldAt = performance.now()
          onProgress?.(done, total)
        }
        if (done < total) await setImmediate()
      }
    })()
    this.#copying = copy
    try {
      await copy
    } finally {
      for (const held of uses) {
        held.uses--
        if (held.uses === 0 && held.isReleased) this.#count(held, -held.bytes)
      }
    }
  }

  #releaseThose(chosen: (held: HeldMemory) => boolean): AllocationInfo[] {
    this.#refuse(0)
    const gone = [...this.#held.values()].filter(chosen)
    return gone.map((held) => {
      const info = describe(held)
      this.#forget(held)
      return info
    })
  }

  #forget(held: HeldMemory): void {
    this.#held.delete(held.id)
    held.isReleased = true
    this.#counts.released++
    if (held.uses === 0) this.#count(held, -held.bytes)
  }

  #count({ kind }: HeldMemory, bytes: number): void {
    this.#counts[kind === 'device' ? 'tracked' : 'pinned'] += bytes
  }

  #find(id: number): HeldMemory {
    this.#refuse(0)
    const held = this.#held.get(whole('id', id))
    if (!held) throw unknown(id)
    return held
  }

  #refuse(device: number): void {
    if (this.#ending.signal.aborted) throw memoryError('closed', 'the memory is closed')
    this.#checkDevice(device)
  }

  #checkDevice(device: number): void {
    if (whole('device', device) !== 0) throw invalid('device', `${device} is not here`)
  }
}

const describe = ({ id, device, bytes, kind, owner, createdAt, expiresAt, uses }: HeldMemory): AllocationInfo => {
  const now = performance.now()
  const timeLeftMs = expiresAt === null ? null : Math.max(0, Math.round(expiresAt - now))
  return { id, device, bytes, kind, placement: 'committed', owner, ageMs: Math.round(now - createdAt), timeLeftMs, inUse: uses > 0 }
}

/** Releases it at the end of its block, unless that has happened already. */
export function disposable(memory: DeviceMemory, info: AllocationInfo): Allocation {
  return Object.defineProperty(info as Allocation, Symbol.asyncDispose, {
    value: async () => {
      await memory.release(info.id).catch((error: unknown) => {
        const isGone = error instanceof DarkroomError && ['memory.unknown', 'memory.closed'].includes(error.code)
        if (!isGone) throw error
      })
    },
  })
}

function within({ id, bytes }: HeldMemory, at: number, size: number): void {
  whole('at', at)
  whole('bytes', size, 1)
  if (at + size > bytes)
    throw memoryError('out_of_range', `${size} bytes from ${at} on leave allocation ${id} of ${bytes} bytes`, { field: 'at' })
}

function compare(source: number, target: number): void {
  if (source !== target) throw memoryError('corrupt', 'the copy arrived damaged: its checksum is not that of its source')
}

const exhausted = (message: string): DarkroomError => memoryError('exhausted', message, { field: 'bytes' })
const unknown = (id: number): DarkroomError =>
  memoryError('unknown', `there is no allocation ${id}; it was released, has expired, or was never made`, { field: 'id' })
