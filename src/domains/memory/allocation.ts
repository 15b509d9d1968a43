/** What the verbs on allocations share: how one is made and found, and who may touch it. */
import { z } from 'zod'
import type { AllocationInfo, CopyOptions } from '../device-memory.ts'
import type { Catalogue, DeviceTools, Tools } from '../operation.ts'
import { Bytes, Count, splitAllocationId, type Target } from '../values.ts'
import { memoryError } from './errors.ts'
import { Kind, Placement, type AllocationView } from './figures/report.ts'

// ---- fields of requests ----

export const Offset = Count.default(0)
/** How many bytes of a range; without it the range ends with its allocation. */
export const RangeBytes = Bytes.optional().describe('default: to the end')
/** How an allocation is made, as a client says it. */
export const make = {
  kind: Kind.default('device').describe('what kernels work on, or host memory that the device reads (upload) or writes (readback)'),
  placement: Placement.default('automatic').describe('placed allocations share arenas and move when these are defragmented'),
  timeToLiveS: z.number().min(1).max(86_400).default(600).describe('seconds until it goes by itself; it can be renewed'),
}
export const milliseconds = (seconds: number): number => Math.round(seconds * 1000)

// ---- fields of inputs ----

/** Whether its workflow may touch what others own. */
export const asOperator = z.boolean().default(false)
/** ms from now on, at most a day; null: as long as its owner. */
export const timeToLiveMs = z.int().min(1).max(86_400_000).nullable()
/** `ownedBy`: the session whose step makes it, or the API key that submitted the session. */
export const Made = z.strictObject({
  kind: Kind,
  placement: Placement,
  ownedBy: z.enum(['session', 'key']).default('session'),
  timeToLiveMs,
})
export type Made = z.infer<typeof Made>

/** The worker that holds an allocation. @throws DarkroomError `memory.unknown` when its device epoch has ended */
export async function holder(id: string, field: string, catalogue: Catalogue): Promise<Target> {
  const { device, epoch } = splitAllocationId(id)
  const target = await catalogue.device(device, field).catch((error: unknown) => {
    if ((error as { code?: unknown }).code === 'device.unknown') return undefined
    throw error
  })
  if (target?.epoch.startsWith(epoch)) return target
  throw memoryError('unknown', `allocation ${id} went with its device epoch`, { field })
}

/** Makes an allocation that is released again when the result of its step is abandoned. */
export async function obtain(bytes: number, made: Made, device: DeviceTools, tools: Tools): Promise<AllocationInfo> {
  const { ownedBy, ...request } = made
  const owner = ownedBy === 'key' ? await device.principal(tools.sessionId) : tools.sessionId
  const allocation = await device.allocate({ ...request, bytes, owner })
  tools.onAbandoned(async () => void (await device.release(allocation.id)))
  return allocation
}

/**
 * An allocation that this step's session may touch; `field` is what a refusal names.
 * @throws DarkroomError `memory.unknown`, `memory.elsewhere`
 */
export async function find(id: string, device: DeviceTools, tools: Tools, isOperator: boolean, field: string): Promise<AllocationInfo> {
  const where = splitAllocationId(id)
  if (where.device !== device.device) throw memoryError('elsewhere', `${id} is not on ${device.device}`, { field })
  if (where.epoch !== device.epoch.slice(0, 8)) throw memoryError('unknown', `${id} went with its device epoch`, { field })
  const info = device.memory.list().find((each) => each.id === where.n)
  const isOwn = info && (isOperator || (await device.principal(info.owner)) === (await device.principal(tools.sessionId)))
  if (!isOwn) throw memoryError('unknown', `there is no allocation ${id}`, { field })
  return info
}

export const nameOf = (n: number, { device, epoch }: Pick<Target, 'device' | 'epoch'>): string => `${device}.${epoch.slice(0, 8)}.${n}`

/** An allocation as the farm sees it, with instants by the worker's clock. */
export function view(info: AllocationInfo, device: Pick<Target, 'device' | 'epoch'>): AllocationView {
  const { id, bytes, kind, placement, owner, ageMs, timeLeftMs, inUse } = info
  const now = Date.now()
  const expiresAt = timeLeftMs === null ? null : now + timeLeftMs
  return { id: nameOf(id, device), device: device.device, bytes, kind, placement, owner, createdAt: now - ageMs, expiresAt, inUse }
}

/**
 * Bytes from `at` to the end of an allocation, if the `bytes` that are asked for are among them.
 * @throws DarkroomError `memory.out_of_range`
 */
export function within({ bytes: size }: AllocationInfo, id: string, at: number, bytes: number | null, field: string): number {
  const left = size - at
  if (left <= 0) throw memoryError('out_of_range', `${field} ${at} leaves allocation ${id} of ${size} bytes`, { field })
  if (bytes !== null && bytes > left)
    throw memoryError('out_of_range', `${bytes} bytes from ${at} on leave allocation ${id} of ${size} bytes`, { field: 'bytes' })
  return left
}

/** A CRC-32 as 8 hex digits. */
export const hex = (sum: number): string => sum.toString(16).padStart(8, '0')

/** Refuses a copy whose bytes differ from its source's. @throws DarkroomError `memory.corrupt` */
export function verifyCopy(id: string, sent: number, arrived: number): void {
  if (sent !== arrived) throw memoryError('corrupt', `${id} holds CRC-32 ${hex(arrived)} after the copy, its source ${hex(sent)}`)
}

/** Cancels with the step, and reports progress under a stage. */
export const watched = (stage: string, tools: Tools): CopyOptions => ({
  signal: tools.signal,
  onProgress: (done, total) => tools.progress({ stage, call: done, calls: total }),
})
