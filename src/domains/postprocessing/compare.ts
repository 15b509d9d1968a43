/** Two pictures that should be one: what differs, in pixels and in texts. */
import { decode } from 'fast-png'
import { decodePicture } from '../../artifacts/picture.ts'
import { textsOf } from '../../artifacts/texts.ts'

export interface Difference {
  /** How many pixels differ; all of the first where the sizes do. */
  pixels: number
  of: number
  /** Keywords whose texts differ. */
  texts: string[]
}

/**
 * Both are decoded apart, in bounds, as uploads are: one may be a stranger's.
 * @throws DarkroomError as `decodePicture`
 */
export async function differenceOf(first: Uint8Array, second: Uint8Array): Promise<Difference> {
  const [one, other] = [await decodePicture(first, 'file'), await decodePicture(second, 'file')]
  const of = one.width * one.height
  const isAlike = one.width === other.width && one.height === other.height && one.hasAlpha === other.hasAlpha
  return { pixels: isAlike ? countOf(one.png, other.png) : of, of, texts: textsThatDiffer(first, second) }
}

function countOf(one: Uint8Array, other: Uint8Array): number {
  const [a, b] = [decode(one), decode(other)]
  let count = 0
  for (let at = 0; at < a.data.length; at += a.channels) {
    let isSame = true
    for (let channel = 0; channel < a.channels; channel++) isSame &&= a.data[at + channel] === b.data[at + channel]
    if (!isSame) count++
  }
  return count
}

function textsThatDiffer(first: Uint8Array, second: Uint8Array): string[] {
  const [one, other] = [textsOf(first).texts, textsOf(second).texts]
  return [...new Set([...one.keys(), ...other.keys()])].filter((keyword) => one.get(keyword) !== other.get(keyword))
}
