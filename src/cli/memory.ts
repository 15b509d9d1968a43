/** `darkroom memory`: shows the memory of devices, and changes allocations by hand. */
import { present } from '../api/view.ts'
import type { Allocation, CommandOutput, MemoryAnalytics } from '../client/index.ts'
import { AllocationView } from '../domains/memory/figures/report.ts'
import { describePool, gib, legend, size } from './bars.ts'
import { connectApi } from './connection.ts'
import { duration } from './progress.ts'
import { watched, type Output } from './sessions.ts'
import { fields, inline, inlined, say, sayJson, table, whisper } from './terminal.ts'

interface OfDevice extends Output {
  device?: string
}

const ofDevice = ({ device }: OfDevice): { device?: string } => (device === undefined ? {} : { device })

export async function show(options: Output): Promise<void> {
  const client = await connectApi(options)
  const pools = await client.memory()
  if (options.json) return sayJson(pools)
  if (pools.length === 0) return say('no devices: no worker is running')
  const width = Math.min(process.stdout.columns ?? 80, 80)
  for (const pool of pools) say(`${describePool(inlined(pool), width)}\n`)
  say(legend)
  for (const { device, message } of await client.memoryRecommendations()) say(inline(`${device}: ${message}`))
}

const left = ({ expiresAt }: Pick<Allocation, 'expiresAt'>): string =>
  expiresAt === null ? 'with its owner' : `in ${duration((Date.parse(expiresAt) - Date.now()) / 1000)}`

/** The allocation that a command made or changed, as lists show it. */
const shownAllocation = (allocation: CommandOutput<'memory-allocate'>): Allocation => present(AllocationView, allocation)

export async function allocations(options: OfDevice): Promise<void> {
  const found = await (await connectApi(options)).allocations(ofDevice(options))
  if (options.json) return sayJson(found)
  if (found.allocations.length === 0) say('no allocations')
  else {
    const rows = found.allocations.map((each) => [each.id, size(each.bytes), each.kind, left(each), each.owner])
    say(table(['ALLOCATION', 'SIZE', 'KIND', 'EXPIRES', 'OWNER'], rows))
  }
  if (!found.isComplete) whisper('there are more allocations: only the newest are listed')
}

export interface MakeOptions extends OfDevice {
  kind?: Allocation['kind']
  placement?: 'automatic' | 'committed' | 'placed'
  ttl?: number
}
const made = ({ kind, placement, ttl, ...options }: MakeOptions) => ({
  ...ofDevice(options),
  ...(kind && { kind }),
  ...(placement && { placement }),
  ...(ttl !== undefined && { timeToLiveS: ttl }),
})

export async function allocate(bytes: number, options: MakeOptions): Promise<void> {
  const allocation = shownAllocation(await (await connectApi(options)).run('memory-allocate', { bytes, ...made(options) }))
  if (options.json) return sayJson(allocation)
  say(allocation.id)
  whisper(inline(`${size(bytes)} on ${allocation.device}; expires ${left(allocation)} unless renewed`))
}

export async function release(ids: string[], options: Output): Promise<void> {
  const client = await connectApi(options)
  const released = []
  for (const id of ids) {
    const one = await client.run('memory-release', { id })
    released.push(one)
    if (!options.json) say(inline(`released ${id}, ${size(one.bytes)}`))
  }
  if (options.json) sayJson(released)
}

export async function renew(id: string, { ttl, ...options }: Output & { ttl?: number }): Promise<void> {
  const input = { id, ...(ttl !== undefined && { timeToLiveS: ttl }) }
  const allocation = shownAllocation(await (await connectApi(options)).run('memory-renew', input))
  if (options.json) sayJson(allocation)
  else say(inline(`${id} expires ${left(allocation)}`))
}

export interface RangeOptions extends Output {
  fromAt?: number
  at?: number
  bytes?: number
  verify?: boolean
}
const range = ({ fromAt, at, bytes }: RangeOptions) => ({
  ...(fromAt !== undefined && { fromAt }),
  ...(at !== undefined && { at }),
  ...(bytes !== undefined && { bytes }),
})

export async function copy(from: string, to: string, options: RangeOptions): Promise<void> {
  const client = await connectApi(options)
  const request = { from, to, ...range(options), ...(options.verify && { verify: true }) }
  const { bytes, seconds, crc32 } = await watched(options, (more) => client.run('memory-copy', request, more))
  if (options.json) return sayJson({ bytes, seconds, crc32 })
  const rate = seconds > 0 ? `, ${(bytes / seconds / 2 ** 30).toFixed(2)} GiB/s` : ''
  say(`copied ${size(bytes)}${rate}${crc32 === null ? '' : `, CRC-32 ${crc32} on both sides`}`)
}

export async function transfer(from: string, options: RangeOptions & MakeOptions & { to?: string }): Promise<void> {
  const client = await connectApi(options)
  const { to } = options
  const request = { from, ...range(options), ...made(options), ...(to !== undefined && { to }), verify: options.verify ?? true }
  const output = await watched(options, (more) => client.run('memory-transfer', request, more))
  const { bytes, crc32 } = output
  const allocation = shownAllocation(output.allocation)
  if (options.json) return sayJson({ allocation, bytes, crc32 })
  say(allocation.id)
  whisper(inline(`transferred ${size(bytes)} to ${allocation.device}, CRC-32 ${crc32}; expires ${left(allocation)}`))
}

export async function defragment(device: string, options: Output): Promise<void> {
  const client = await connectApi(options)
  const done = await watched(options, (more) => client.run('memory-defragment', { device }, more))
  if (options.json) return sayJson(done)
  const { moves, bytesMoved, bytesCopied, arenasFreed, before, after } = done.compaction
  const percent = (fraction: number): string => `${Math.round(100 * fraction)} %`
  say(`${moves} allocations moved, ${size(bytesMoved)} of which ${size(bytesCopied)} copied; ${arenasFreed} arenas given back`)
  say(`fragmentation ${percent(before)} before, ${percent(after)} now`)
  say(done.python ? `Python’s own pool was emptied, not moved: ${size(done.python.freedBytes)} given back` : 'no Python child runs')
}

export async function analytics(options: OfDevice): Promise<void> {
  const all = await (await connectApi(options)).memoryAnalytics(ofDevice(options))
  if (options.json) return sayJson(all)
  if (all.length === 0) return say('no worker has published analytics yet; they come a few seconds after its start')
  say(all.map(describeAnalytics).join('\n\n'))
}

function describeAnalytics({
  device,
  since,
  samples,
  peaks,
  fragmentation,
  totals,
  lifetimes,
  refusals,
  recommendations,
}: MemoryAnalytics): string {
  const peak = (name: 'used' | 'tracked' | 'reserved'): string => {
    const found = peaks[name]
    return found ? `${gib(found.bytes)} at ${new Date(found.at).toISOString()}` : 'unknown'
  }
  const sum = (name: 'allocated' | 'released' | 'expired' | 'orphaned'): number => totals.session[name] + totals.key[name]
  const longest = lifetimes.at(-1)
  const lines: [string, string][] = [
    ['device', device],
    ['since', `${new Date(since).toISOString()}, ${samples} samples`],
    ['most used', peak('used')],
    ['most allocated', peak('tracked')],
    ['fragmentation', `${Math.round(100 * fragmentation.now)} % now, ${Math.round(100 * fragmentation.highest)} % at most`],
    ['allocations', `${sum('allocated')} made, ${sum('released')} released, ${sum('expired')} expired, ${sum('orphaned')} orphaned`],
    ['longest lived', longest ? `under ${duration(longest.to / 1000)}` : 'none has ended'],
    ['refused', String(refusals.count)],
    ...recommendations.map(({ message }): [string, string] => ['recommended', message]),
  ]
  return fields(lines, 16)
}

export async function leaks(options: OfDevice): Promise<void> {
  const all = await (await connectApi(options)).memoryLeaks(ofDevice(options))
  if (options.json) return sayJson(all)
  for (const { device, count, bytes, byReason, newest, suspects } of all) {
    say(inline(`${device}: ${count} reclaimed, ${size(bytes)} (${byReason.expired.count} expired, ${byReason.orphaned.count} orphaned)`))
    for (const { id, owner, reason, foundAt } of newest) say(inline(`  ${foundAt}  ${id} of ${owner}, ${reason}`))
    for (const { id, owner, unusedMs } of suspects) say(inline(`  suspect: ${id} of ${owner}, unused for ${duration(unusedMs / 1000)}`))
  }
  if (all.length === 0) say('no devices: no worker is running')
}
