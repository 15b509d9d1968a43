/**
 * Texts as EXIF (CIPA DC-008), as `texts.ts` reads them: `parameters` in `UserComment`, where AUTOMATIC1111's web UI
 * has it; others as `keyword:text` in tags of the camera, where ComfyUI has its graph.
 */

/** What a JPEG has room for in one segment, less its head and what an encoder adds, bytes. */
export const mostExifBytes = 65_000

const short = 3
const long = 4
const ascii = 2
const undefinedType = 7

interface Entry {
  tag: number
  type: number
  count: number
  value: Buffer
}

/** ImageDescription, Make, Model and Software, by the text that each is given here; in the order of a directory. */
export const exifTags = { invokeai_metadata: 0x010e, darkroom: 0x010f, prompt: 0x0110, 'sd-metadata': 0x0131 } as const

/** A TIFF structure, high byte first, with the texts that have a place; undefined where none has. */
export function exifOf(texts: ReadonlyMap<string, string>): Buffer | undefined {
  const first = Object.entries(exifTags).flatMap(([keyword, tag]): Entry[] => {
    const text = texts.get(keyword)
    if (text === undefined) return []
    const value = Buffer.from(`${keyword}:${text}\0`, 'utf8')
    return [{ tag, type: ascii, count: value.length, value }]
  })
  const parameters = texts.get('parameters')
  if (first.length === 0 && parameters === undefined) return undefined
  const head = Buffer.concat([Buffer.from('MM'), number(short, 42), number(long, 8)])
  if (parameters === undefined) return Buffer.concat([head, directory(first, head.length)])
  const value = Buffer.concat([Buffer.from('UNICODE\0'), Buffer.from(parameters, 'utf16le').swap16()])
  const comment: Entry = { tag: 0x9286, type: undefinedType, count: value.length, value }
  const pointer = { tag: 0x8769, type: long, count: 1, value: number(long, 0) }
  const second = head.length + directory([...first, pointer], head.length).length
  const main = directory([...first, { ...pointer, value: number(long, second) }], head.length)
  return Buffer.concat([head, main, directory([comment], second)])
}

function number(type: typeof short | typeof long, value: number): Buffer {
  const bytes = Buffer.alloc(type === short ? 2 : 4)
  if (type === short) bytes.writeUInt16BE(value)
  else bytes.writeUInt32BE(value)
  return bytes
}

/** One directory with its values behind it. `at`: where it stands in the file. */
function directory(entries: readonly Entry[], at: number): Buffer {
  const heads: Buffer[] = []
  const values: Buffer[] = []
  let free = at + 2 + 12 * entries.length + 4
  for (const { tag, type, count, value } of entries) {
    const isInline = value.length <= 4
    const place = isInline ? Buffer.concat([value, Buffer.alloc(4 - value.length)]) : number(long, free)
    heads.push(number(short, tag), number(short, type), number(long, count), place)
    if (isInline) continue
    const padded = value.length % 2 === 0 ? value : Buffer.concat([value, Buffer.alloc(1)])
    values.push(padded)
    free += padded.length
  }
  return Buffer.concat([number(short, entries.length), ...heads, number(long, 0), ...values])
}
