/**
 * One file's verdict. The content decides what it is, its name only where the content says nothing: a pickle that is
 * called `.safetensors` is told as a pickle, and none is ever opened further than its first bytes.
 */
import { extname } from 'node:path'
import { detect } from './detect.ts'
import { readGguf } from './gguf.ts'
import { HeaderFault, quote, sizeText, withFile, type OpenFile } from './header.ts'
import { claimedHeader, readSafetensors } from './safetensors.ts'
import { failed, type Format, type Verdict } from './verdict.ts'

/** Endings of files that hold weights. */
const formatsByEnding: Readonly<Record<string, Format>> = {
  '.safetensors': 'safetensors',
  '.sft': 'safetensors',
  '.gguf': 'gguf',
  '.ckpt': 'pickle',
  '.pt': 'pickle',
  '.pth': 'pickle',
  '.bin': 'pickle',
}
export const weightEndings: readonly string[] = Object.keys(formatsByEnding)
export const formatOf = (path: string): Format | undefined => new Map(Object.entries(formatsByEnding)).get(extname(path).toLowerCase())

/** Bytes that tell the formats apart. */
const sniffed = 256

/**
 * The verdict of the file at `path`, which must be no link. Reads its first bytes and its header. A file that is
 * broken, refused or gone has a verdict with its reason: nothing is thrown for what a file is or holds.
 */
export async function inspectFile(path: string): Promise<Verdict> {
  let format = formatOf(path) ?? 'safetensors'
  try {
    return await withFile(path, async (file) => {
      if (file.size === 0) throw new HeaderFault('empty', 'size', 'It is empty.')
      const head = await file.read(0, Math.min(sniffed, file.size))
      format = formatIn(head, file, format)
      if (format === 'pickle') throw pickleFault(head)
      return detect(format === 'gguf' ? await readGguf(file) : await readSafetensors(file), format)
    })
  } catch (error) {
    if (error instanceof HeaderFault) return failed(error.reason.code === 'pickle' ? 'pickle' : format, error.reason)
    throw error
  }
}

/** First bytes of what is no model, or none that is read. */
const others: readonly [begins: RegExp, what: string][] = [
  [/^(?:\xef\xbb\xbf)?\s*(?:<!doctype|<html|<\?xml|<head)/i, 'It is a web page.'],
  [/^(?:\xef\xbb\xbf)?\s*\{\s*"(?:errors?|message|detail|code|status)"/, 'It is an error message of a web server.'],
]
/** The same by their exact first bytes. */
const marks: readonly [begins: string, what: string][] = [
  ['\x1f\x8b', 'a gzip archive'],
  ['\x28\xb5\x2f\xfd', 'a zstd archive'],
  ['7z\xbc\xaf\x27\x1c', 'a 7z archive'],
  ['Rar!', 'a rar archive'],
  ['\x89HDF', 'an HDF5 file'],
  ['\x93NUMPY', 'an array of NumPy'],
  ['\x89PNG', 'a picture'],
  ['\xff\xd8\xff', 'a picture'],
  ['RIFF', 'a picture or sound'],
  ['\x7fELF', 'a program'],
  ['MZ', 'a program'],
  ['lmgg', 'a file of GGML, the format before GGUF'],
  ['tjgg', 'a file of GGML, the format before GGUF'],
]

/**
 * What the first bytes say, else what the name says.
 * @throws HeaderFault for what is no model
 */
function formatIn(head: Buffer, file: OpenFile, byName: Format): Format {
  const text = head.toString('latin1')
  if (text.startsWith('GGUF')) return 'gguf'
  if (text.startsWith('version https://git-lfs')) {
    const size = /\nsize (\d{1,15})\n/.exec(text)?.[1]
    throw new HeaderFault(
      'lfs_pointer',
      'content',
      `It is a git-lfs pointer${size === undefined ? '' : ` to ${sizeText(Number(size))}`}, not the file itself.`,
    )
  }
  const claimed = claimedHeader(head)
  // Before the pickle's mark: a header of 640 bytes begins with the same two.
  if (claimed !== undefined && claimed < file.size) return 'safetensors'
  if (isPickle(head)) return 'pickle'
  const mark = marks.find(([begins]) => text.startsWith(begins))
  if (mark) throw new HeaderFault('other_format', 'content', `It is ${mark[1]}.`)
  const other = others.find(([begins]) => begins.test(text))
  if (other) throw new HeaderFault('web_page', 'content', other[1])
  if (byName === 'gguf')
    throw new HeaderFault('header_syntax', 'header', `It does not begin with “GGUF” but with ${quote(text.slice(0, 4))}.`)
  return byName
}

/** A zip archive, as `torch.save` writes; a pickle of protocol 2 to 5; a tar archive, as torch wrote before 0.1.10. */
const isZip = (head: Buffer): boolean => head.toString('latin1', 0, 2) === 'PK' && [3, 5, 7].includes(head[2] ?? 0)
const isBarePickle = (head: Buffer): boolean => head[0] === 0x80 && (head[1] ?? 0) >= 2 && (head[1] ?? 0) <= 5
const isPickle = (head: Buffer): boolean =>
  isZip(head) || isBarePickle(head) || (head.length === sniffed && /^(?:tensors|storages|pickle)\0/.test(head.toString('latin1')))

function pickleFault(head: Buffer): HeaderFault {
  if (isZip(head)) return new HeaderFault('pickle', 'content', 'It is a zip archive, as torch.save writes pickles; it is not opened.')
  if (isBarePickle(head)) return new HeaderFault('pickle', 'content', 'It is a pickle; it is not opened.')
  return new HeaderFault('pickle', 'name', 'By its ending it is a pickle; it is not opened.')
}
