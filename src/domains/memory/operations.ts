import { crc32 } from 'node:zlib'
import type { DarkroomError } from '../../errors.ts'
import type { AllocationInfo, CopyOptions } from '../device-memory.ts'
import type { DeviceTools, Tools } from '../operation.ts'
import type {
  AllocateInput,
  AllocationView,
  ChecksumInput,
  ChecksumOutput,
  CopyInput,
  CopyOutput,
  DefragmentInput,
  DefragmentOutput,
  ReadInput,
  ReadOutput,
  ReleaseInput,
  ReleaseOutput,
  RenewInput,
  WriteInput,
  WriteOutput,
} from './schema.ts'
import { memoryError } from './errors.ts'

/** Most pieces a transfer is stored in, and how small these may be: hashing one must not hold up the worker. */
const mostChunks = 1024
const leastChunk = 8 << 20

/** Device memory, or host memory that the device reads or writes at full speed. @throws DarkroomError `memory.exhausted`, `device.unavailable` */
export async function allocate(input: AllocateInput, tools: Tools): Promise<AllocationView> {
  const { target, bytes, ...make } = input
  const device = tools.device(target)
  return view(await obtain(bytes, make, device, tools), device)
}

/** @throws DarkroomError `memory.unknown` */
export async function release({ target, id, asOperator }: ReleaseInput, tools: Tools): Promise<ReleaseOutput> {
  const device = tools.device(target)
  const { id: n } = await find(id, device, tools, asOperator, 'id')
  const { bytes } = await device.release(n)
  return { id, bytes }
}

/** Its time begins anew. @throws DarkroomError `memory.unknown` */
export async function renew({ target, id, timeToLiveMs, asOperator }: RenewInput, tools: Tools): Promise<AllocationView> {
  const device = tools.device(target)
  const { id: n } = await find(id, device, tools, asOperator, 'id')
  device.memory.renew(n, timeToLiveMs)
  return view(device.memory.inspect(n), device)
}

/** Within one device, in any direction. @throws DarkroomError `memory.unknown`, `memory.elsewhere`, `memory.out_of_range`, `memory.corrupt` */
export async function copy(input: CopyInput, tools: Tools): Promise<CopyOutput> {
  const device = tools.device(input.target)
  const source = await find(input.from, device, tools, input.asOperator, 'from')
  const target = await find(input.to, device, tools, input.asOperator, 'to')
  const { fromAt, at } = input
  const asked = input.bytes
  const left = [within(source, input.from, fromAt, asked, 'fromAt'), within(target, input.to, at, asked, 'at')]
  const bytes = asked ?? Math.min(...left)
  const began = performance.now()
  await device.memory.copy({ from: source.id, fromAt, to: target.id, at, bytes }, watched('copy', tools))
  const seconds = (performance.now() - began) / 1000
  if (!input.verify) return { bytes, seconds, crc32: null }
  const sent = await device.memory.checksum(source.id, { at: fromAt, bytes }, watched('verify', tools))
  const arrived = await device.memory.checksum(target.id, { at, bytes }, { signal: tools.signal })
  if (sent !== arrived) throw corrupt(input.to, sent, arrived)
  return { bytes, seconds, crc32: hex(arrived) }
}

/** @throws DarkroomError `memory.unknown`, `memory.out_of_range` */
export async function checksum(input: ChecksumInput, tools: Tools): Promise<ChecksumOutput> {
  const device = tools.device(input.target)
  const held = await find(input.id, device, tools, input.asOperator, 'id')
  const { id, at } = input
  const left = within(held, id, at, input.bytes, 'at')
  const bytes = input.bytes ?? left
  return { id, at, bytes, crc32: hex(await device.memory.checksum(held.id, { at, bytes }, watched('verify', tools))) }
}

/** A range as artifacts, for a worker elsewhere to write. @throws DarkroomError `memory.unknown`, `memory.out_of_range`, `memory.corrupt` */
export async function read(input: ReadInput, tools: Tools): Promise<ReadOutput> {
  const device = tools.device(input.target)
  const held = await find(input.id, device, tools, input.asOperator, 'id')
  const left = within(held, input.id, input.at, input.bytes, 'at')
  const bytes = input.bytes ?? left
  const size = Math.max(leastChunk, Math.ceil(bytes / mostChunks))
  const chunks: string[] = []
  let sum = 0
  for (let done = 0; done < bytes;) {
    const chunk = new Uint8Array(Math.min(size, bytes - done))
    await device.memory.read(held.id, chunk, { at: input.at + done, verify: true, signal: tools.signal })
    sum = crc32(chunk, sum)
    chunks.push(await tools.keep(chunk, 'scratch'))
    done += chunk.byteLength
    tools.progress({ stage: 'copy', call: done, calls: bytes })
  }
  return { bytes, crc32: hex(sum), chunks }
}

/**
 * What `read` left as artifacts, into an allocation or a new one.
 * @throws DarkroomError `memory.unknown`, `memory.exhausted`, `memory.out_of_range`, `memory.corrupt`, `artifact.missing`
 */
export async function write(input: WriteInput, tools: Tools): Promise<WriteOutput> {
  const device = tools.device(input.target)
  const { to, make, at, bytes } = input
  if ((to === null) === (make === null)) throw memoryError('invalid', 'to or make must be given, not both and not neither', { field: 'to' })
  const target = make ? await obtain(at + bytes, make, device, tools) : await find(to ?? '', device, tools, input.asOperator, 'to')
  try {
    within(target, name(target.id, device), at, bytes, 'at')
    let [done, sum] = [0, 0]
    for (const sha256 of input.chunks) {
      const chunk = new Uint8Array(await tools.artifacts.read(sha256))
      await device.memory.write(target.id, chunk, { at: at + done, signal: tools.signal })
      sum = crc32(chunk, sum)
      done += chunk.byteLength
      tools.progress({ stage: 'copy', call: done, calls: bytes })
    }
    if (done !== bytes || hex(sum) !== input.crc32)
      throw memoryError('corrupt', `the chunks hold ${done} bytes with CRC-32 ${hex(sum)}, not ${bytes} with ${input.crc32}`)
    if (input.verify) {
      const arrived = await device.memory.checksum(target.id, { at, bytes }, watched('verify', tools))
      if (arrived !== sum) throw corrupt(name(target.id, device), sum, arrived)
    }
    return { allocation: view(device.memory.inspect(target.id), device), bytes, crc32: input.crc32 }
  } catch (error) {
    if (make) await device.release(target.id).catch(() => undefined)
    throw error
  }
}

/** Moves placed allocations together, and empties Python's pool. */
export async function defragment({ target, maxBytes }: DefragmentInput, tools: Tools): Promise<DefragmentOutput> {
  const device = tools.device(target)
  const options = { ...watched('move', tools), ...(maxBytes !== null && { maxBytes }) }
  const compaction = await device.memory.defragment(device.index ?? 0, options)
  const trimmed = await device.trimPython(0)
  return { compaction, python: trimmed && { freedBytes: trimmed.freedBytes } }
}

type Make = Omit<AllocateInput, 'target' | 'bytes'>

/** An allocation that goes again when nobody hears of it. */
async function obtain(bytes: number, make: Make, device: DeviceTools, tools: Tools): Promise<AllocationInfo> {
  const { ownedBy, ...request } = make
  const owner = ownedBy === 'key' ? await device.principal(tools.sessionId) : tools.sessionId
  const made = await device.allocate({ ...request, bytes, owner })
  tools.undo(async () => void (await device.release(made.id)))
  return made
}

/** An allocation that this step's session may touch; `field` is what a refusal names. @throws DarkroomError `memory.unknown`, `memory.elsewhere` */
async function find(id: string, device: DeviceTools, tools: Tools, asOperator: boolean, field: string): Promise<AllocationInfo> {
  const [where, epoch, n] = id.split('.')
  if (where !== device.device) throw memoryError('elsewhere', `${id} is not on ${device.device}`, { field })
  if (epoch !== device.epoch.slice(0, 8)) throw memoryError('unknown', `${id} went with its device epoch`, { field })
  const info = device.memory.list().find((each) => each.id === Number(n))
  const isOwn = info && (asOperator || (await device.principal(info.owner)) === (await device.principal(tools.sessionId)))
  if (!isOwn) throw memoryError('unknown', `there is no allocation ${id}`, { field })
  return info
}

const name = (n: number, { device, epoch }: DeviceTools): string => `${device}.${epoch.slice(0, 8)}.${n}`

/** An allocation as everybody sees it, with times by the worker's clock. */
export function view(info: AllocationInfo, device: DeviceTools): AllocationView {
  const { id, bytes, kind, placement, owner, ageMs, timeLeftMs, inUse } = info
  const now = Date.now()
  const expiresAt = timeLeftMs === null ? null : now + timeLeftMs
  return { id: name(id, device), device: device.device, bytes, kind, placement, owner, createdAt: now - ageMs, expiresAt, inUse }
}

/** Bytes from `at` to the end of an allocation, if the `bytes` that are asked for are among them. @throws DarkroomError `memory.out_of_range` */
function within({ bytes: size }: AllocationInfo, id: string, at: number, bytes: number | null, field: string): number {
  const left = size - at
  if (left <= 0) throw memoryError('out_of_range', `${field} ${at} leaves allocation ${id} of ${size} bytes`, { field })
  if (bytes !== null && bytes > left)
    throw memoryError('out_of_range', `${bytes} bytes from ${at} on leave allocation ${id} of ${size} bytes`, {
      field: 'bytes',
    })
  return left
}

const corrupt = (id: string, sent: number, arrived: number): DarkroomError =>
  memoryError('corrupt', `${id} holds CRC-32 ${hex(arrived)} after the copy, its source ${hex(sent)}`)

const hex = (sum: number): string => sum.toString(16).padStart(8, '0')

const watched = (stage: string, tools: Tools): CopyOptions => ({
  signal: tools.signal,
  onProgress: (done, total) => tools.progress({ stage, call: done, calls: total }),
})
