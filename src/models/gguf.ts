/**
 * The header of a GGUF file: counts, typed metadata, and a row of each tensor with its place. Strings and lists of the
 * metadata are skipped where they are not of use; a vocabulary has 300,000 of them.
 * Source: `docs/gguf.md` of the ggml project for the format; block sizes from its table of types.
 */
import { isUtf8 } from 'node:buffer'
import { HeaderFault, isPlain, maxName, maxTensors, maxTexts, quote, sizeText, type Header, type OpenFile, type Tensor } from './header.ts'

/** Number of a type: its name, how many weights a block has, and its bytes. */
const types: Readonly<Record<number, readonly [name: string, weights: number, bytes: number]>> = {
  0: ['F32', 1, 4],
  1: ['F16', 1, 2],
  2: ['Q4_0', 32, 18],
  3: ['Q4_1', 32, 20],
  6: ['Q5_0', 32, 22],
  7: ['Q5_1', 32, 24],
  8: ['Q8_0', 32, 34],
  9: ['Q8_1', 32, 36],
  10: ['Q2_K', 256, 84],
  11: ['Q3_K', 256, 110],
  12: ['Q4_K', 256, 144],
  13: ['Q5_K', 256, 176],
  14: ['Q6_K', 256, 210],
  15: ['Q8_K', 256, 292],
  16: ['IQ2_XXS', 256, 66],
  17: ['IQ2_XS', 256, 74],
  18: ['IQ3_XXS', 256, 98],
  19: ['IQ1_S', 256, 50],
  20: ['IQ4_NL', 32, 18],
  21: ['IQ3_S', 256, 110],
  22: ['IQ2_S', 256, 82],
  23: ['IQ4_XS', 256, 136],
  24: ['I8', 1, 1],
  25: ['I16', 1, 2],
  26: ['I32', 1, 4],
  27: ['I64', 1, 8],
  28: ['F64', 1, 8],
  29: ['IQ1_M', 256, 56],
  30: ['BF16', 1, 2],
  34: ['TQ1_0', 256, 54],
  35: ['TQ2_0', 256, 66],
  39: ['MXFP4', 32, 17],
}

/** Bytes of a metadata value, by the number of its type; texts (8) and lists (9) have a length of their own. */
const widths: Readonly<Record<number, number>> = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 }
const [textType, listType] = [8, 9]

/** Bytes that are read at first, and at most: a vocabulary in the metadata has some 6 MB. */
const [firstBytes, mostBytes] = [64 * 1024, 32 * 1024 * 1024]
const maxDimensions = 4
/** Most texts in all lists, which are passed over one by one. */
const maxListed = 1_000_000

/** The bytes at hand end before the header does. */
class Short extends Error {}

/**
 * Reads the header, and of the file no more than it takes.
 * @throws HeaderFault with what is wrong
 */
export async function readGguf(file: OpenFile): Promise<Header> {
  for (let length = firstBytes; ; length *= 4) {
    const bytes = await file.read(0, Math.min(length, mostBytes, file.size))
    try {
      return parseGguf(bytes, file.size)
    } catch (error) {
      if (!(error instanceof Short)) throw error
      if (bytes.length >= file.size)
        throw new HeaderFault('incomplete', 'header', `Incomplete: it ends after ${sizeText(file.size)}, in its header.`)
      if (bytes.length >= mostBytes) throw new HeaderFault('header_size', 'header', `Its header has more than ${sizeText(mostBytes)}.`)
    }
  }
}

/**
 * Reads a header off the file's first bytes.
 * @throws HeaderFault when it is no header, or its tensors do not lie in `fileBytes`
 * @throws Short when the header goes on behind `bytes`
 */
function parseGguf(bytes: Buffer, fileBytes: number): Header {
  const cursor = new Cursor(bytes)
  cursor.skip(4)
  const version = cursor.u32()
  if (version !== 2 && version !== 3) {
    // In a file of the other byte order the version's low bytes come last.
    const why = version > 0xff_ff ? 'It has the byte order of big machines' : `It is of version ${version}`
    throw new HeaderFault('version', 'version', `${why}; versions 2 and 3 in the usual byte order are read.`)
  }
  const tensorCount = cursor.count('tensor_count', maxTensors)
  const metadata = readMetadata(cursor, cursor.count('metadata_kv_count', maxTexts))
  const alignment = Number(metadata.get('general.alignment') ?? 32)
  if (!Number.isInteger(alignment) || alignment < 8 || alignment > 65_536 || alignment % 8 !== 0)
    throw new HeaderFault('tensor', 'general.alignment', `The alignment ${alignment} is no multiple of 8 up to 65,536.`)
  const tensors = new Map<string, Tensor>()
  const places: { name: string; begin: number; end: number }[] = []
  for (let i = 0; i < tensorCount; i++) {
    const { name, begin, ...tensor } = readTensor(cursor)
    if (tensors.has(name)) throw new HeaderFault('duplicate', quote(name), `Two tensors are named ${quote(name)}.`)
    if (begin % alignment !== 0)
      throw new HeaderFault('layout', quote(name), `Tensor ${quote(name)} begins at ${begin}, no multiple of the alignment ${alignment}.`)
    tensors.set(name, tensor)
    places.push({ name, begin, end: begin + tensor.bytes })
  }
  checkPlaces(places, alignment, fileBytes - roundUp(cursor.at, alignment))
  return { tensors, metadata }
}

const roundUp = (value: number, step: number): number => Math.ceil(value / step) * step

function checkPlaces(places: { name: string; begin: number; end: number }[], alignment: number, bodyBytes: number): void {
  if (places.length === 0) throw new HeaderFault('empty', 'header', 'It holds no tensors.')
  places.sort((a, b) => a.begin - b.begin || a.end - b.end)
  let end = 0
  for (const place of places) {
    if (place.begin !== roundUp(end, alignment)) {
      const what = place.begin < end ? 'overlaps the one before it' : `leaves a gap of ${sizeText(place.begin - end)} before it`
      throw new HeaderFault('layout', quote(place.name), `Tensor ${quote(place.name)} ${what}.`)
    }
    end = place.end
  }
  if (end > bodyBytes) throw new HeaderFault('incomplete', 'size', `Incomplete: ${sizeText(Math.max(0, bodyBytes))} of ${sizeText(end)}.`)
  if (roundUp(end, alignment) < bodyBytes)
    throw new HeaderFault('trailing_bytes', 'size', `${sizeText(bodyBytes - end)} follow behind the last tensor, which no tensor owns.`)
}

/** Texts and numbers of the metadata as text; lists are passed over, but for a tensor's original shape: `5120,16,1`. */
function readMetadata(cursor: Cursor, count: number): Map<string, string> {
  const metadata = new Map<string, string>()
  const seen = new Set<string>()
  for (let i = 0; i < count; i++) {
    const name = cursor.name()
    if (!isPlain(name)) throw new HeaderFault('header_syntax', 'metadata', `The name ${quote(name)} of an entry holds control characters.`)
    if (seen.has(name))
      throw new HeaderFault('duplicate', `metadata.${quote(name)}`, `The entry ${quote(name)} of the metadata is there twice.`)
    seen.add(name)
    const type = cursor.u32()
    if (name === 'general.alignment' && type !== 4 && type !== 10)
      throw new HeaderFault('header_syntax', 'general.alignment', 'The alignment is no whole number without a sign.')
    if (type === listType) {
      const numbers = cursor.list(name)
      if (numbers) metadata.set(name, numbers.join(','))
    } else if (type === textType) {
      const text = cursor.text()
      if (text.length <= 65_536) metadata.set(name, text)
    } else metadata.set(name, String(cursor.value(type, name)))
  }
  return metadata
}

function readTensor(cursor: Cursor): Tensor & { name: string; begin: number } {
  const name = cursor.name()
  if (name === '' || !isPlain(name))
    throw new HeaderFault('tensor', quote(name), `The name ${quote(name)} of a tensor is empty or holds control characters.`)
  const rank = cursor.u32()
  if (rank > maxDimensions)
    throw new HeaderFault('tensor', quote(name), `Tensor ${quote(name)} claims ${rank} dimensions; there are at most ${maxDimensions}.`)
  const shape: number[] = []
  let weights = 1
  for (let i = 0; i < rank; i++) {
    // The fastest dimension comes first in this format.
    const dimension = cursor.u64(`${quote(name)}.dimensions`)
    shape.unshift(dimension)
    weights *= dimension
    if (weights > Number.MAX_SAFE_INTEGER)
      throw new HeaderFault('tensor', quote(name), `Tensor ${quote(name)} has a shape of more than 2^53 elements.`)
  }
  const number = cursor.u32()
  const [type, block, blockBytes] = types[number] ?? []
  if (type === undefined || block === undefined || blockBytes === undefined)
    throw new HeaderFault('tensor', quote(name), `Tensor ${quote(name)} has the unknown type ${number}.`)
  if ((shape.at(-1) ?? 1) % block !== 0)
    throw new HeaderFault(
      'tensor',
      quote(name),
      `Tensor ${quote(name)} of [${shape.join(', ')}] does not divide into blocks of ${block}, as ${type} has them.`,
    )
  const begin = cursor.u64(`${quote(name)}.offset`)
  return { name, type, shape, count: weights, bytes: (weights / block) * blockBytes, begin }
}

/** Reads values one behind the other, the lowest byte first. */
class Cursor {
  at = 0
  /** Texts in lists that were passed over. */
  #listed = 0
  readonly #bytes: Buffer

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  /** Where `length` bytes begin that are at hand; the next value begins behind them. */
  skip(length: number): number {
    const from = this.at
    if (length > this.#bytes.length - from) throw new Short()
    this.at = from + length
    return from
  }

  u32(): number {
    return this.#bytes.readUInt32LE(this.skip(4))
  }

  /** @throws HeaderFault when it is over 2^53 */
  u64(field: string): number {
    const from = this.skip(8)
    const value = this.#bytes.readUInt32LE(from + 4) * 2 ** 32 + this.#bytes.readUInt32LE(from)
    if (value > Number.MAX_SAFE_INTEGER) throw new HeaderFault('tensor', field, 'It has a number over 2^53.')
    return value
  }

  count(field: string, most: number): number {
    const count = this.u64(field)
    if (count > most) throw new HeaderFault('header_limits', field, `It claims ${count} entries; at most ${most} are read.`)
    return count
  }

  /** @throws HeaderFault when it is no UTF-8 text: two names must not become one */
  name(): string {
    const from = this.at + 8
    const name = this.text(maxName)
    if (!isUtf8(this.#bytes.subarray(from, this.at)))
      throw new HeaderFault('header_syntax', 'name', `The name ${quote(name)} is no UTF-8 text.`)
    return name
  }

  text(most = mostBytes): string {
    const length = this.u64('length of a text')
    if (length > most) throw new HeaderFault('header_limits', 'length of a text', `It claims a text of ${sizeText(length)}.`)
    const from = this.skip(length)
    return this.#bytes.toString('utf8', from, this.at)
  }

  value(type: number, name: string): number | bigint | boolean {
    const from = this.skip(widths[type] ?? unknownType(type, name))
    const bytes = this.#bytes
    switch (type) {
      case 0:
        return bytes.readUInt8(from)
      case 1:
        return bytes.readInt8(from)
      case 2:
        return bytes.readUInt16LE(from)
      case 3:
        return bytes.readInt16LE(from)
      case 4:
        return bytes.readUInt32LE(from)
      case 5:
        return bytes.readInt32LE(from)
      case 6:
        return bytes.readFloatLE(from)
      case 7:
        return bytes.readUInt8(from) !== 0
      case 10:
        return bytes.readBigUInt64LE(from)
      case 11:
        return bytes.readBigInt64LE(from)
      default:
        return bytes.readDoubleLE(from)
    }
  }

  /** Passes over a list; a short one of numbers is read, for original shapes are kept in these. */
  list(name: string): (number | bigint | boolean)[] | undefined {
    const type = this.u32()
    const count = this.u64(`metadata.${quote(name)}`)
    if (type === textType) {
      this.#listed += count
      if (this.#listed > maxListed)
        throw new HeaderFault(
          'header_limits',
          `metadata.${quote(name)}`,
          `With the list ${quote(name)} it claims ${this.#listed} texts in lists; at most ${maxListed} are read.`,
        )
      // Its name is escaped once: a vocabulary has 300,000 of them.
      const field = `metadata.${quote(name)}`
      for (let i = 0; i < count; i++) this.skip(this.u64(field))
      return undefined
    }
    const width = widths[type] ?? unknownType(type, name)
    if (count <= 16) return Array.from({ length: count }, () => this.value(type, name))
    this.skip(count * width)
    return undefined
  }
}

function unknownType(type: number, name: string): never {
  throw new HeaderFault(
    'header_syntax',
    `metadata.${quote(name)}`,
    `The entry ${quote(name)} of the metadata has the unknown type ${type}.`,
  )
}
