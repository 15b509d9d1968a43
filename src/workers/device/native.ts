/**
 * The door to the native addon: real device memory through CUDA, Direct3D 12 or host memory, and system RAM in plain
 * TypeScript where the addon is not built. `npm run build:native` builds it; `nativeStatus()` says whether it is here,
 * and why not.
 */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { builtAddon } from '../../../host/places.mjs'
import { DarkroomError } from '../../errors.ts'
import {
  complete,
  invalid,
  steady,
  whole,
  type Allocation,
  type AllocationInfo,
  type AllocationRequest,
  type BackendName,
  type Compaction,
  type CopyOptions,
  type Device,
  type DeviceMemory,
  type Figures,
  type Usage,
  type Vitals,
} from '../../domains/device-memory.ts'
import { disposable, HostMemory, hostFigures } from './host-memory.ts'
import { memoryError } from '../../domains/memory/errors.ts'
import { deviceError } from '../../domains/device/errors.ts'

/** The addon's own surface, native/src/node/addon.cpp. */
interface Addon {
  backends: BackendName[]
  open(backend: string, arenaBytes: number | null): Promise<AddonMemory>
  probeDirectMl(): { isHere: boolean; detail: string }
}
type Progress = ((done: number, total: number) => void) | null
interface AddonMemory {
  devices(): Device[]
  figures(device: number): Promise<Figures>
  vitals(device: number): Promise<Vitals>
  usage(device: number): Usage
  setLimit(device: number, bytes: number | null): void
  allocate(
    device: number,
    bytes: number,
    kind: string,
    placement: string,
    owner: string,
    timeToLiveMs: number | null,
  ): Promise<AllocationInfo>
  release(id: number): Promise<void>
  releaseOwner(owner: string): Promise<AllocationInfo[]>
  renew(id: number, timeToLiveMs: number | null): void
  expire(): Promise<AllocationInfo[]>
  inspect(id: number): AllocationInfo
  list(): AllocationInfo[]
  write(job: number, id: number, at: number, bytes: Uint8Array, verify: boolean, progress: Progress): Promise<void>
  read(job: number, id: number, at: number, into: Uint8Array, verify: boolean, progress: Progress): Promise<void>
  copy(job: number, from: number, fromAt: number, to: number, at: number, bytes: number, verify: boolean, progress: Progress): Promise<void>
  checksum(job: number, id: number, at: number, bytes: number, progress: Progress): Promise<number>
  defragment(job: number, device: number, maxBytes: number, progress: Progress): Promise<Compaction>
  trim(device: number): Promise<void>
  cancel(job: number): void
  close(): Promise<AllocationInfo[]>
}

export interface NativeStatus {
  /** The addon's file, or null: then `reason` says why. */
  addon: string | null
  reason: string | null
  /** Backends in this build; whether their drivers are here shows when one is opened. */
  backends: BackendName[]
  directMl: { isHere: boolean; detail: string }
}

let loaded: { addon: Addon; path: string } | { reason: string } | undefined

function load(): { addon: Addon; path: string } | { reason: string } {
  if (loaded) return loaded
  if (!existsSync(builtAddon)) return (loaded = { reason: 'not built; `npm run build:native` builds it where there is a C++ compiler' })
  try {
    return (loaded = { addon: createRequire(import.meta.url)(builtAddon) as Addon, path: builtAddon })
  } catch (error) {
    return (loaded = { reason: `${builtAddon} cannot be loaded: ${(error as Error).message}` })
  }
}

export function nativeStatus(): NativeStatus {
  const found = load()
  if ('reason' in found)
    return { addon: null, reason: found.reason, backends: ['host'], directMl: { isHere: false, detail: 'the native addon is not built' } }
  return { addon: found.path, reason: null, backends: found.addon.backends, directMl: found.addon.probeDirectMl() }
}

export interface OpenOptions {
  /** The smallest piece that placed allocations share; 64 MiB. */
  arenaBytes?: number
  /** Leave the addon out though it is here. */
  plain?: boolean
}

/**
 * Opens one backend; `auto` takes the first that has a device which is no software: cuda, d3d12, then host.
 * @throws DarkroomError `device.unavailable` when that backend is not here; the host is everywhere
 */
export async function openDeviceMemory(
  backend: BackendName | 'auto' = 'auto',
  { arenaBytes, plain = false }: OpenOptions = {},
): Promise<DeviceMemory> {
  if (arenaBytes !== undefined) whole('arenaBytes', arenaBytes, 1)
  const found = plain ? { reason: 'left out' } : load()
  if ('reason' in found) {
    if (backend !== 'auto' && backend !== 'host')
      throw deviceError('unavailable', `the backend ${backend} needs the native addon: ${found.reason}`)
    return new HostMemory()
  }
  const { addon } = found
  if (backend !== 'auto') return openWith(addon, backend, arenaBytes)
  for (const candidate of addon.backends.filter((name) => name !== 'host')) {
    const memory = await openWith(addon, candidate, arenaBytes).catch(unlessUnavailable)
    if (memory?.devices().some(({ software }) => !software)) return memory
    await memory?.close()
  }
  return openWith(addon, 'host', arenaBytes)
}

function unlessUnavailable(error: unknown): undefined {
  if (error instanceof DarkroomError && error.code === 'device.unavailable') return undefined
  throw error
}

async function openWith(addon: Addon, backend: BackendName, arenaBytes: number | undefined): Promise<DeviceMemory> {
  return new NativeMemory(backend, await translated(() => addon.open(backend, arenaBytes ?? null)))
}

const codes: Record<string, string> = {
  DR_INVALID: 'memory.invalid',
  DR_RANGE: 'memory.out_of_range',
  DR_BAD_HANDLE: 'memory.unknown',
  DR_OUT_OF_MEMORY: 'memory.exhausted',
  DR_CANCELLED: 'memory.cancelled',
  DR_CORRUPT: 'memory.corrupt',
  DR_CLOSED: 'memory.closed',
  DR_DEVICE_REMOVED: 'device.lost',
  DR_UNAVAILABLE: 'device.unavailable',
  DR_DRIVER: 'memory.refused',
}

function translate(error: unknown): unknown {
  if (!(error instanceof Error) || !('code' in error)) return error
  const code = codes[String(error.code)]
  if (code === undefined) return error
  const details = 'native' in error ? { native: error.native } : {}
  return new DarkroomError(code, error.message, { details, cause: error })
}

/** The addon's errors as ours, thrown or rejected. */
async function translated<T>(call: () => T | Promise<T>): Promise<T> {
  try {
    return await call()
  } catch (error) {
    throw translate(error)
  }
}

function translatedNow<T>(call: () => T): T {
  try {
    return call()
  } catch (error) {
    throw translate(error)
  }
}

class NativeMemory implements DeviceMemory {
  readonly implementation = 'addon'
  readonly backend: BackendName
  readonly #native: AddonMemory
  #jobs = 0

  constructor(backend: BackendName, native: AddonMemory) {
    this.backend = backend
    this.#native = native
  }

  devices(): Device[] {
    return this.#native.devices()
  }

  async figures(device: number): Promise<Figures> {
    const figures = await translated(() => this.#native.figures(whole('device', device)))
    // The addon does not read cgroups.
    return this.backend === 'host' ? hostFigures() : figures
  }

  vitals(device: number): Promise<Vitals> {
    return translated(() => this.#native.vitals(whole('device', device)))
  }

  usage(device: number): Usage {
    return translatedNow(() => this.#native.usage(whole('device', device)))
  }

  setLimit(device: number, bytes: number | null): void {
    translatedNow(() => this.#native.setLimit(whole('device', device), bytes === null ? null : whole('limit', bytes)))
  }

  async allocate(request: AllocationRequest): Promise<Allocation> {
    const { device, bytes, kind, placement, owner, timeToLiveMs } = complete(request)
    return disposable(this, await translated(() => this.#native.allocate(device, bytes, kind, placement, owner, timeToLiveMs)))
  }

  release(id: number): Promise<void> {
    return translated(() => this.#native.release(whole('id', id)))
  }

  async releaseOwner(owner: string): Promise<AllocationInfo[]> {
    if (typeof owner !== 'string' || owner === '') throw invalid('owner', 'must name whose they are')
    return translated(() => this.#native.releaseOwner(owner))
  }

  renew(id: number, timeToLiveMs: number | null): void {
    const time = timeToLiveMs === null ? null : whole('timeToLiveMs', timeToLiveMs, 1)
    translatedNow(() => this.#native.renew(whole('id', id), time))
  }

  expire(): Promise<AllocationInfo[]> {
    return translated(() => this.#native.expire())
  }

  inspect(id: number): AllocationInfo {
    return translatedNow(() => this.#native.inspect(whole('id', id)))
  }

  list(): AllocationInfo[] {
    return this.#native.list()
  }

  async write(id: number, bytes: Uint8Array, { at = 0, verify = false, ...options }: CopyOptions & { at?: number } = {}): Promise<void> {
    steady('bytes', bytes)
    await this.#run(options, (job, progress) => this.#native.write(job, whole('id', id), whole('at', at), bytes, verify, progress))
  }

  async read(id: number, into: Uint8Array, { at = 0, verify = false, ...options }: CopyOptions & { at?: number } = {}): Promise<void> {
    steady('into', into)
    await this.#run(options, (job, progress) => this.#native.read(job, whole('id', id), whole('at', at), into, verify, progress))
  }

  async copy(
    { from, fromAt = 0, to, at = 0, bytes }: { from: number; fromAt?: number; to: number; at?: number; bytes: number },
    { verify = false, ...options }: CopyOptions = {},
  ): Promise<void> {
    whole('from', from)
    whole('fromAt', fromAt)
    whole('to', to)
    whole('at', at)
    whole('bytes', bytes, 1)
    await this.#run(options, (job, progress) => this.#native.copy(job, from, fromAt, to, at, bytes, verify, progress))
  }

  async checksum(
    id: number,
    { at = 0, bytes }: { at?: number; bytes: number },
    options: Omit<CopyOptions, 'verify'> = {},
  ): Promise<number> {
    whole('id', id)
    whole('at', at)
    whole('bytes', bytes, 1)
    return this.#run(options, (job, progress) => this.#native.checksum(job, id, at, bytes, progress))
  }

  async defragment(
    device: number,
    { maxBytes = Number.MAX_SAFE_INTEGER, ...options }: Omit<CopyOptions, 'verify'> & { maxBytes?: number } = {},
  ): Promise<Compaction> {
    whole('device', device)
    whole('maxBytes', maxBytes)
    return this.#run(options, (job, progress) => this.#native.defragment(job, device, maxBytes, progress))
  }

  trim(device: number): Promise<void> {
    return translated(() => this.#native.trim(whole('device', device)))
  }

  async close(): Promise<AllocationInfo[]> {
    try {
      return await this.#native.close()
    } catch (error) {
      const ours = translate(error)
      if (ours instanceof DarkroomError && ours.code === 'memory.closed') return []
      throw ours
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** Starts a copy under a number of its own, by which an abort ends it. */
  async #run<T>({ signal, onProgress }: CopyOptions, start: (job: number, progress: Progress) => Promise<T>): Promise<T> {
    if (signal?.aborted) throw memoryError('cancelled', 'the copy was cancelled')
    const job = ++this.#jobs
    const cancel = (): void => this.#native.cancel(job)
    let thrown: { error: unknown } | undefined
    // An exception of the caller's must not pass through the addon: it ends the copy, and is what the copy rejects
    // with.
    const progress: Progress = onProgress
      ? (done, total) => {
          try {
            if (!thrown) onProgress(done, total)
          } catch (error) {
            thrown = { error }
            cancel()
          }
        }
      : null
    signal?.addEventListener('abort', cancel, { once: true })
    try {
      const result = await translated(() => start(job, progress))
      if (thrown) throw thrown.error
      return result
    } catch (error) {
      throw thrown ? thrown.error : error
    } finally {
      signal?.removeEventListener('abort', cancel)
    }
  }
}
