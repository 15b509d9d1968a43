/** The request of a picture, by the texts in its file. */
import { textsOf } from '../../../artifacts/texts.ts'
import { isInfotext, readInfotext } from './a1111.ts'
import { readGraph } from './comfyui.ts'
import { readInvoke } from './invokeai.ts'
import type { Reading, Unread } from './reading.ts'
import { readReceipt } from './receipt.ts'

/**
 * Texts that tell of a request, by keyword, with what reads them, in the order in which they are believed. Programs
 * write what another one understands beside their own.
 */
const readers: readonly [keyword: string, read: (text: string) => Reading][] = [
  ['darkroom', readReceipt],
  ['parameters', readParameters],
  ['invokeai_metadata', readInvoke],
  ['sd-metadata', readInvoke],
  ['prompt', readGraph],
]

/** Many programs call their text `parameters`. @throws Error for one of another form */
function readParameters(text: string): Reading {
  if (isInfotext(text)) return readInfotext(text)
  throw new Error(text.trimStart().startsWith('{') ? 'it is of a program that is not known' : 'it has no line of settings')
}

/** The texts of a file that tell of its request, as they are. */
export function tellingTexts(file: Uint8Array): [keyword: string, text: string][] {
  const { texts } = textsOf(file)
  return readers.flatMap(([keyword]) => {
    const text = texts.get(keyword)
    return text === undefined ? [] : [[keyword, text] as [string, string]]
  })
}

export interface FileReading {
  /** Undefined where nothing in the file tells of a request, or nothing that can be read. */
  reading: Reading | undefined
  /** Texts that are there and could not be read. */
  broken: Unread[]
}

/** What a file says of its request. */
export function readRequest(file: Uint8Array): FileReading {
  const { texts, unread } = textsOf(file)
  const broken: Unread[] = []
  for (const [keyword, read] of readers) {
    const [text, why] = [texts.get(keyword), unread.get(keyword)]
    if (why !== undefined) broken.push({ name: keyword, value: '', why })
    if (text === undefined) continue
    try {
      return { reading: read(text), broken }
    } catch (error) {
      broken.push({ name: keyword, value: Buffer.from(text.slice(0, 200)).toString(), why: (error as Error).message })
    }
  }
  return { reading: undefined, broken }
}
