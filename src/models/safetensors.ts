/**
 * The header of a safetensors file: eight bytes with its length (unsigned, the lowest first), then JSON of one shape,
 * `{name: {dtype, shape, data_offsets}, "__metadata__": {text: text}}`. Read by a parser of that shape alone, in one
 * pass: it knows no nesting to be deep in, keeps no name twice, and makes no object whose keys a stranger chose.
 * Source: the format's own description, README of the safetensors project, and its `src/tensor.rs` for what is refused.
 */
import { isUtf8 } from 'node:buffer'
import {
  HeaderFault,
  isPlain,
  maxHeaderBytes,
  maxName,
  maxRank,
  maxTensors,
  maxText,
  maxTexts,
  quote,
  sizeText,
  type Header,
  type OpenFile,
  type Tensor,
} from './header.ts'
import type { Fault } from './verdict.ts'

/** Bits of one element, by the names of element types. */
const bits: Readonly<Record<string, number>> = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
}
const bitsOf = new Map(Object.entries(bits))

const lengthBytes = 8
const tensorFields = ['dtype', 'shape', 'data_offsets']
/** Texts that nearly every tensor has: they are compared where they stand, and not made anew. */
const usual = (texts: readonly string[]) => texts.map((text) => ({ text, bytes: Buffer.from(text, 'latin1') }))
const usualFields = usual(tensorFields)
const usualTypes = usual(['F16', 'BF16', 'F32', 'F8_E4M3'])
const open = 0x7b

/** Length of the header that the first nine bytes claim, when they look like those of a safetensors file. */
export function claimedHeader(head: Buffer): number | undefined {
  if (head.length <= lengthBytes || head[lengthBytes] !== open) return undefined
  const length = head.readBigUInt64LE()
  return length > BigInt(Number.MAX_SAFE_INTEGER) ? undefined : Number(length)
}

/**
 * Reads the header and nothing behind it.
 * @throws HeaderFault with what is wrong
 */
export async function readSafetensors(file: OpenFile): Promise<Header> {
  const { json, bodyFrom } = await headerOf(file)
  return parseSafetensors(json, file.size - bodyFrom)
}

/** Where a tensor lies, counted from the first byte behind the header. */
export interface Place {
  name: string
  begin: number
  end: number
}

/** Tensors with their places, in the order in which they lie; and what of the file they do not fit. */
export interface Layout {
  bodyFrom: number
  tensors: Header['tensors']
  places: Place[]
  faults: HeaderFault[]
}

/**
 * As `readSafetensors`, for who wants to know of every tensor that does not lie as it should.
 * @throws HeaderFault when the header itself is none
 */
export async function readLayout(file: OpenFile): Promise<Layout> {
  const { json, bodyFrom } = await headerOf(file)
  if (!isUtf8(json)) throw new HeaderFault('header_syntax', 'header', 'Its header is no UTF-8 text.')
  const { tensors, places } = new Parser(json).header()
  places.sort(inPlace)
  const bodyBytes = file.size - bodyFrom
  const cut = places
    .filter(({ end }) => end > bodyBytes)
    .map(({ name, begin, end }) => {
      const left = sizeText(Math.max(0, bodyBytes - begin))
      return new HeaderFault('incomplete', quote(name), `Tensor ${quote(name)} is cut: ${left} of its ${sizeText(end - begin)} are there.`)
    })
  return { bodyFrom, tensors, places, faults: [...tilingFaults(places, bodyBytes), ...cut] }
}

async function headerOf(file: OpenFile): Promise<{ json: Buffer; bodyFrom: number }> {
  const head = await file.read(0, lengthBytes + 1)
  if (head.length <= lengthBytes) throw new HeaderFault('incomplete', 'header', `It ends after ${file.size} bytes, before its header.`)
  const length = head.readBigUInt64LE()
  if (length > BigInt(maxHeaderBytes)) {
    const told = length > BigInt(Number.MAX_SAFE_INTEGER) ? `${length} bytes` : sizeText(Number(length))
    throw new HeaderFault('header_size', 'header', `It claims a header of ${told}; a header has at most ${sizeText(maxHeaderBytes)}.`)
  }
  const size = Number(length)
  if (size < 2) throw new HeaderFault('header_size', 'header', `It claims a header of ${size} bytes; the smallest has 2.`)
  if (head[lengthBytes] !== open) throw new HeaderFault('header_syntax', 'header', notJson(head[lengthBytes]))
  if (size > file.size - lengthBytes)
    throw new HeaderFault(
      'incomplete',
      'header',
      `Incomplete: ${sizeText(file.size)}, and the header alone has ${sizeText(size + lengthBytes)}.`,
    )
  const json = await file.read(lengthBytes, size)
  if (json.length < size) throw new HeaderFault('incomplete', 'header', 'It became shorter while it was read.')
  return { json, bodyFrom: lengthBytes + size }
}

const notJson = (byte: number | undefined): string =>
  byte === 0xef ? 'Its header begins with a byte-order mark, not with “{”.' : 'Its header does not begin with “{”.'

/** @throws HeaderFault when the JSON is not a header, or its tensors do not fill `bodyBytes` exactly */
export function parseSafetensors(json: Buffer, bodyBytes: number): Header {
  if (!isUtf8(json)) throw new HeaderFault('header_syntax', 'header', 'Its header is no UTF-8 text.')
  const { tensors, metadata, places } = new Parser(json).header()
  checkTiling(places, bodyBytes)
  return { tensors, metadata }
}

const inPlace = (a: Place, b: Place): number => a.begin - b.begin || a.end - b.end

function checkTiling(places: Place[], bodyBytes: number): void {
  if (places.some(({ begin }, i) => i > 0 && begin < (places[i - 1]?.end ?? 0))) places.sort(inPlace)
  for (const fault of tilingFaults(places, bodyBytes)) throw fault
}

/** Tensors lie one behind the other from the first byte to the last, in whatever order they are named. */
function* tilingFaults(places: readonly Place[], bodyBytes: number): Generator<HeaderFault> {
  if (places.length === 0) yield new HeaderFault('empty', 'header', 'It holds no tensors.')
  let end = 0
  let last = ''
  for (const place of places) {
    if (place.begin !== end) {
      const where = last === '' ? 'the beginning' : quote(last)
      const what = place.begin < end ? `overlaps ${where}` : `leaves a gap of ${sizeText(place.begin - end)} behind ${where}`
      yield new HeaderFault('layout', `${quote(place.name)}.data_offsets`, `Tensor ${quote(place.name)} ${what}.`)
    }
    end = Math.max(end, place.end)
    last = place.name
  }
  if (end > bodyBytes) yield new HeaderFault('incomplete', 'size', `Incomplete: ${sizeText(bodyBytes)} of ${sizeText(end)}.`)
  if (end < bodyBytes)
    yield new HeaderFault('trailing_bytes', 'size', `${sizeText(bodyBytes - end)} follow behind the last tensor, which no tensor owns.`)
}

/** A parser of one header; `#at` is the byte that comes next. */
class Parser {
  readonly #json: Buffer
  readonly #tensors = new Map<string, Tensor>()
  readonly #metadata = new Map<string, string>()
  readonly #places: Place[] = []
  #at = 0
  /** What is being read, for messages: a tensor, or a field of the header. */
  #owner = ''
  #field = 'header'

  constructor(json: Buffer) {
    this.#json = json
  }

  header(): { tensors: Map<string, Tensor>; metadata: Map<string, string>; places: Place[] } {
    let isMetadataRead = false
    let isMore = this.#begins()
    while (isMore) {
      const name = this.#name()
      if (name !== '__metadata__') this.#tensor(name)
      else if (isMetadataRead) throw this.#fault('duplicate', 'There are two entries “__metadata__”.')
      else {
        isMetadataRead = true
        this.#texts()
      }
      isMore = this.#goesOn()
    }
    // Writers pad the header with spaces, so that the tensors begin at a multiple of eight.
    if (!Number.isNaN(this.#peek()))
      throw this.#fault('header_syntax', `Behind the header's JSON stands something else, at byte ${this.#at}.`)
    return { tensors: this.#tensors, metadata: this.#metadata, places: this.#places }
  }

  #texts(): void {
    this.#owner = ''
    this.#field = '__metadata__'
    const seen = new Set<string>()
    let isMore = this.#begins()
    while (isMore) {
      const name = this.#name()
      this.#field = `__metadata__.${quote(name)}`
      if (seen.has(name)) throw this.#fault('duplicate', `The entry ${quote(name)} of the metadata is there twice.`)
      if (seen.size === maxTexts) throw this.#fault('header_limits', `It has more than ${maxTexts} entries of metadata.`)
      seen.add(name)
      if (this.#peek() !== 0x22) throw this.#fault('header_syntax', `The entry ${quote(name)} of the metadata is no text.`)
      const text = this.#string(maxText)
      if (text !== undefined) this.#metadata.set(name, text)
      isMore = this.#goesOn()
    }
  }

  #tensor(name: string): void {
    this.#owner = name
    if (this.#tensors.has(name)) throw this.#fault('duplicate', `Two tensors are named ${quote(name)}.`)
    if (this.#tensors.size === maxTensors) throw this.#fault('header_limits', `It has more than ${maxTensors} tensors.`)
    if (name === '' || !isPlain(name))
      throw this.#fault('tensor', `The name ${quote(name)} of a tensor is empty or holds control characters.`)
    let type: string | undefined
    let shape: number[] | undefined
    let offsets: number[] | undefined
    let isMore = this.#begins()
    while (isMore) {
      const field = this.#fieldName()
      if (field === 'dtype' && type === undefined) type = this.#usual(usualTypes) ?? this.#string(32) ?? ''
      else if (field === 'shape' && !shape) shape = this.#numbers(maxRank)
      else if (field === 'data_offsets' && !offsets) offsets = this.#numbers(2)
      else if (tensorFields.includes(field)) throw this.#fault('duplicate', `Tensor ${quote(name)} has two fields ${field}.`)
      else throw this.#fault('header_syntax', `Tensor ${quote(name)} has a field ${quote(field)} that the format does not know.`)
      isMore = this.#goesOn()
    }
    if (type === undefined || !shape || !offsets)
      throw this.#fault('tensor', `Tensor ${quote(name)} lacks one of dtype, shape and data_offsets.`)
    this.#add(name, type, shape, offsets)
  }

  #add(name: string, type: string, shape: number[], [begin, end]: number[]): void {
    const width = bitsOf.get(type)
    if (width === undefined) throw this.#fault('tensor', `Tensor ${quote(name)} has the unknown element type ${quote(type)}.`)
    if (begin === undefined || end === undefined || end < begin)
      throw this.#fault('tensor', `Tensor ${quote(name)} has offsets that are no begin and end.`)
    let count = 1
    for (const dimension of shape) {
      count *= dimension
      if (count > Number.MAX_SAFE_INTEGER) throw this.#fault('tensor', `Tensor ${quote(name)} has a shape of more than 2^53 elements.`)
    }
    // Compared in bits, as integers: a product over 2^53 is no longer exact, so it is compared where it is.
    const isFitting = count * width <= Number.MAX_SAFE_INTEGER && count * width === (end - begin) * 8
    if (!isFitting) throw this.#fault('tensor', `Tensor ${quote(name)} of ${type} [${shape.join(', ')}] cannot have ${end - begin} bytes.`)
    this.#tensors.set(name, { type, shape, count, bytes: end - begin })
    this.#places.push({ name, begin, end })
  }

  /** The brace that opens an object; whether there is an entry in it. */
  #begins(): boolean {
    this.#expect(open, 'an object')
    if (this.#peek() !== 0x7d) return true
    this.#at++
    return false
  }

  /** An entry's name, and the colon behind it. */
  #name(): string {
    const name = this.#string(maxName, true) ?? ''
    this.#expect(0x3a, '“:”')
    return name
  }

  /** As `#name`, of a tensor's fields. */
  #fieldName(): string {
    const field = this.#usual(usualFields)
    if (field !== undefined) this.#expect(0x3a, '“:”')
    return field ?? this.#name()
  }

  /** The text that comes next, if it is one of these; else nothing is read. */
  #usual(texts: ReturnType<typeof usual>): string | undefined {
    if (this.#peek() !== 0x22) return undefined
    const json = this.#json
    const from = this.#at + 1
    for (const { text, bytes } of texts) {
      let same = 0
      while (same < bytes.length && json[from + same] === bytes[same]) same++
      if (same < bytes.length || json[from + same] !== 0x22) continue
      this.#at = from + same + 1
      return text
    }
    return undefined
  }

  /** What stands behind an entry: a comma and the next entry, or the closing brace. */
  #goesOn(): boolean {
    const byte = this.#peek()
    this.#at++
    if (byte === 0x7d) return false
    if (byte === 0x2c) return true
    throw this.#fault('header_syntax', `“,” or “}” is missing behind an entry, at byte ${this.#at}.`)
  }

  #numbers(most: number): number[] {
    this.#expect(0x5b, 'a list')
    const numbers: number[] = []
    if (this.#peek() === 0x5d) {
      this.#at++
      return numbers
    }
    for (;;) {
      if (numbers.length === most)
        throw this.#fault('header_limits', `A list of tensor ${quote(this.#owner)} has more than ${most} numbers.`)
      numbers.push(this.#number())
      const byte = this.#peek()
      this.#at++
      if (byte === 0x5d) return numbers
      if (byte !== 0x2c) throw this.#fault('header_syntax', `“,” or “]” is missing in a list of tensor ${quote(this.#owner)}.`)
    }
  }

  /** A whole number from 0 to 2^53 - 1, written in digits. */
  #number(): number {
    this.#peek()
    const json = this.#json
    const from = this.#at
    let at = from
    let value = 0
    for (;;) {
      const digit = (json[at] ?? 0) - 0x30
      if (digit < 0 || digit > 9) break
      value = value * 10 + digit
      at++
      if (value > Number.MAX_SAFE_INTEGER) throw this.#fault('tensor', `Tensor ${quote(this.#owner)} has a number over 2^53.`)
    }
    this.#at = at
    const next = json[at]
    const isWhole = at > from && (json[from] !== 0x30 || at === from + 1)
    if (!isWhole || next === 0x2e || next === 0x65 || next === 0x45)
      throw this.#fault('tensor', `Tensor ${quote(this.#owner)} has a shape or an offset that is no whole number from 0 on.`)
    return value
  }

  /** The text of a string; undefined when it has more than `most` bytes, which is a fault of a name. */
  #string(most: number, isName = false): string | undefined {
    this.#expect(0x22, 'a text in quotes')
    const json = this.#json
    const from = this.#at
    let at = from
    let isEscaped = false
    let union = 0
    for (;;) {
      const byte = json[at]
      if (byte === undefined) throw this.#fault('header_syntax', 'Its JSON ends in the middle of a text.')
      if (byte === 0x22) break
      if (isName && at - from > most) throw this.#fault('header_limits', `A name has more than ${most} bytes.`)
      if (byte < 0x20) throw this.#fault('header_syntax', `A control character stands unescaped in a text, at byte ${at}.`)
      union |= byte
      if (byte === 0x5c) {
        isEscaped = true
        at++
      }
      at++
    }
    this.#at = at + 1
    if (at - from > most) return undefined
    if (!isEscaped) return union < 0x80 ? json.toString('latin1', from, at) : json.toString('utf8', from, at)
    try {
      return JSON.parse(json.toString('utf8', from - 1, at + 1)) as string
    } catch {
      throw this.#fault('header_syntax', `A text has an escape that JSON does not know, before byte ${at}.`)
    }
  }

  #expect(byte: number, told: string): void {
    if (this.#peek() !== byte) throw this.#fault('header_syntax', `At byte ${this.#at} of the header ${told} is missing.`)
    this.#at++
  }

  /** The next byte that is no white space; NaN at the end. */
  #peek(): number {
    const json = this.#json
    for (;;) {
      const byte = json[this.#at]
      // White space, of which there is hardly any, is below all else.
      if (byte === undefined) return Number.NaN
      if (byte > 0x20 || (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09)) return byte
      this.#at++
    }
  }

  #fault(code: Fault, message: string): HeaderFault {
    return new HeaderFault(code, this.#owner === '' ? this.#field : quote(this.#owner), message)
  }
}
