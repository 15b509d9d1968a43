/** Memory in words and bars that need no colour. Pure. */
import type { MemoryPool } from '../client/index.ts'

const GiB = 2 ** 30
const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** `unknown` is not nothing. */
const unknown = 'unknown'

/** `1.50 GiB`, and `unknown` for null. */
export const gib = (bytes: number | null): string => (bytes === null ? unknown : `${(bytes / GiB).toFixed(2)} GiB`)

/** In the unit that reads best: `512 B`, `1.5 MiB`. */
export function size(bytes: number | null): string {
  if (bytes === null) return unknown
  const unit = Math.min(units.length - 1, bytes < 1 ? 0 : Math.floor(Math.log2(bytes) / 10))
  return `${unit === 0 ? bytes : Number((bytes / 1024 ** unit).toFixed(2))} ${units[unit]}`
}

/** `859.5 million weights`, and of few their number. */
export const weights = (count: number): string => (count < 1e6 ? `${count} weights` : `${(count / 1e6).toFixed(1)} million weights`)

/** Bytes of a size as people write it: `4096`, `64MiB`, `1.5 GiB`; `G` means GiB. Undefined when it is none. */
export function parseSize(text: string): number | undefined {
  const [, number, letter = ''] = /^(\d+(?:\.\d+)?)\s*(?:([kmgt])(?:i?b)?|b)?$/i.exec(text.trim()) ?? []
  if (number === undefined) return undefined
  const bytes = Number(number) * 1024 ** (letter === '' ? 0 : 'kmgt'.indexOf(letter.toLowerCase()) + 1)
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : undefined
}

export const marks = { used: '█', evictable: '▒', free: '·', unknown: '?' }

/** How much of `total` each part takes, as so many marks; a part that is there is seen. */
export function bar({ total, used, evictable }: Pick<MemoryPool, 'total' | 'used' | 'evictable'>, width: number): string {
  if (total === null || used === null || total <= 0) return marks.unknown.repeat(width)
  const columns = (bytes: number): number => (bytes <= 0 ? 0 : Math.max(1, Math.round((width * bytes) / total)))
  const dropped = Math.min(evictable, used)
  const firm = Math.min(width, columns(used - dropped))
  const loose = Math.min(width - firm, columns(dropped))
  return marks.used.repeat(firm) + marks.evictable.repeat(loose) + marks.free.repeat(width - firm - loose)
}

const levels = { ok: 'ok', elevated: 'elevated (80 % or more)', high: 'high (90 % or more)', critical: 'critical (95 % or more)' }

/** One pool: its name, a bar, its figures, its pressure. */
export function describePool(pool: MemoryPool, width: number): string {
  const { name, device, host, total, used, evictable, free, source, pressure, ageS } = pool
  const share = total && used !== null ? ` (${Math.round((100 * used) / total)} %)` : ''
  const firm = used === null ? null : used - Math.min(evictable, used)
  const room = Math.max(10, Math.min(60, width - 4))
  const age = ageS > 10 ? `, as it was ${Math.round(ageS)} s ago` : ''
  const relief = pressure.rung === null ? '' : `; ${pressure.rung}`
  return [
    `${name}  ${device ?? `host ${host}`}`,
    `  [${bar(pool, room)}]`,
    `  ${gib(used)} of ${gib(total)}${share}, by ${source}${age}`,
    `  used ${gib(firm)}  evictable ${gib(evictable)}  free ${gib(free)}`,
    `  pressure ${levels[pressure.level]}${relief}`,
  ].join('\n')
}

export const legend = `${marks.used} used  ${marks.evictable} evictable: can be freed at once  ${marks.free} free  ${marks.unknown} unknown`
