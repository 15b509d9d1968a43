/**
 * The EXIF of an AVIF, whose file is a tree of boxes (ISO/IEC 14496-12, ISO/IEC 23008-12): items by number with their
 * kinds, and where the bytes of each lie. Files are hostile: what points out of them, or nests, is left unread.
 */

/** How many boxes, items and places are looked at. */
const mostParts = 1000

interface Box {
  type: string
  content: Buffer
}

function* boxesIn(bytes: Buffer): Generator<Box> {
  for (let at = 0, part = 0; at + 8 <= bytes.length && part < mostParts; part++) {
    const size = bytes.readUInt32BE(at)
    // 0: up to the end of the file; 1: a length of 64 bits, which no box that is read here needs.
    const end = size === 0 ? bytes.length : at + size
    if (size === 1 || end < at + 8 || end > bytes.length) return
    yield { type: bytes.toString('latin1', at + 4, at + 8), content: bytes.subarray(at + 8, end) }
    at = end
  }
}

function boxOf(bytes: Buffer, type: string): Buffer | undefined {
  for (const box of boxesIn(bytes)) if (box.type === type) return box.content
  return undefined
}

/** The TIFF structure of its EXIF; undefined where it has none, or is broken. */
export function exifOfAvif(avif: Buffer): Buffer | undefined {
  // Behind the version of the box.
  const meta = boxOf(avif, 'meta')?.subarray(4)
  const [infos, places] = meta ? [boxOf(meta, 'iinf'), boxOf(meta, 'iloc')] : []
  if (!infos || !places) return undefined
  try {
    const item = exifItem(infos)
    const place = item === undefined ? undefined : placeOf(places, item)
    if (!place || place.at + place.bytes > avif.length) return undefined
    const exif = avif.subarray(place.at, place.at + place.bytes)
    return exif.subarray(4 + exif.readUInt32BE(0))
  } catch (error) {
    // A number that lies beyond its box.
    if (error instanceof RangeError) return undefined
    throw error
  }
}

/** The number of the item that is of kind `Exif`. */
function exifItem(infos: Buffer): number | undefined {
  for (const { type, content } of boxesIn(infos.subarray(infos[0] === 0 ? 6 : 8))) {
    const isWide = content[0] === 3
    const kindAt = isWide ? 10 : 8
    if (type === 'infe' && content.toString('latin1', kindAt, kindAt + 4) === 'Exif')
      return isWide ? content.readUInt32BE(4) : content.readUInt16BE(4)
  }
  return undefined
}

/** Where the bytes of an item lie in the file, of one that is in one piece. */
function placeOf(places: Buffer, item: number): { at: number; bytes: number } | undefined {
  const version = places.readUInt8(0)
  let at = 4
  const take = (bytes: number): number => {
    const value = bytes === 0 ? 0 : bytes === 8 ? Number(places.readBigUInt64BE(at)) : places.readUIntBE(at, bytes)
    at += bytes
    return value
  }
  const [sizes, more] = [take(1), take(1)]
  const [ofOffset, ofLength, ofBase, ofIndex] = [sizes >> 4, sizes & 15, more >> 4, version === 0 ? 0 : more & 15]
  const count = take(version < 2 ? 2 : 4)
  for (let i = 0; i < Math.min(count, mostParts); i++) {
    const number = take(version < 2 ? 2 : 4)
    const isInFile = version === 0 || (take(2) & 15) === 0
    take(2)
    const base = take(ofBase)
    const extents = Array.from({ length: Math.min(take(2), mostParts) }, () => {
      take(ofIndex)
      return { at: base + take(ofOffset), bytes: take(ofLength) }
    })
    if (number === item) return isInFile && extents.length === 1 ? extents[0] : undefined
  }
  return undefined
}
