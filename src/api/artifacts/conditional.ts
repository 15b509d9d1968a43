/** Conditions and ranges of a request for bytes that never change (RFC 9110, 13 and 14). Pure. */

const tag = /(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"/g

/** Whether `If-None-Match` names the tag: `*`, or a list in which a weak tag counts like a strong one. */
export function isKnown(ifNoneMatch: string | undefined, etag: string): boolean {
  if (ifNoneMatch === undefined) return false
  if (ifNoneMatch.trim() === '*') return true
  const isList = ifNoneMatch
    .replaceAll(tag, 'T')
    .split(',')
    .every((each) => ['', 'T'].includes(each.trim()))
  return isList && (ifNoneMatch.match(tag) ?? []).some((each) => each.replace(/^W\//, '') === etag)
}

/** First and last byte, both counted in. */
export interface ByteRange {
  first: number
  last: number
}

/**
 * The bytes that a request asks for; undefined: all of them. So it is without a `Range`, with one that is no range of
 * bytes or asks for several, and where `If-Range` means other bytes than these: no date is that of bytes which never
 * change.
 */
export function rangeOf(
  { range, ifRange }: { range: string | undefined; ifRange: string | undefined },
  etag: string,
  size: number,
): ByteRange | 'unsatisfiable' | undefined {
  if (range === undefined || (ifRange !== undefined && ifRange.trim() !== etag)) return undefined
  const [, from, to = '', suffix] = /^\s*bytes=[\s,]*(?:(\d+)-(\d*)|-(\d+))[\s,]*$/i.exec(range) ?? []
  if (suffix !== undefined)
    return Number(suffix) === 0 || size === 0 ? 'unsatisfiable' : { first: Math.max(0, size - Number(suffix)), last: size - 1 }
  if (from === undefined) return undefined
  const [first, last] = [Number(from), to === '' ? Number.POSITIVE_INFINITY : Number(to)]
  if (last < first) return undefined
  return first >= size ? 'unsatisfiable' : { first, last: Math.min(last, size - 1) }
}
