import { Piscina } from 'piscina'
import { pictureType } from '../../artifacts/picture.ts'
import { textsOf, withTexts } from '../../artifacts/texts.ts'
import { artifactError } from '../../errors.ts'
import type { Tools } from '../operation.ts'
import { version } from './versions.ts'

/**
 * The one PNG writer: pure JavaScript over a pinned deflate, so that equal pixels and texts are equal bytes on every
 * CPU. Its versions are part of the exactness key.
 */
export const pngEncoder = `fast-png ${version('fast-png')}, fflate ${version('fflate')}`

/** Threads are started when a picture is to be written, and end half a minute after the last one. */
const threads = new Piscina<{ pixels: Uint8Array; width: number; height: number }, Uint8Array>({
  filename: new URL('./png-thread.mjs', import.meta.url).href,
  // Its own flags: the thread needs no compiler, and loads faster without.
  execArgv: [],
  minThreads: 0,
  maxThreads: 2,
  idleTimeout: 30_000,
})

/**
 * @param pixels RGB or RGBA, 8 bits each, row by row: `width * height` times 3 or 4 bytes
 * @param texts keyword → text; written as tEXt when Latin-1 can hold it, else as iTXt (PNG, W3C, §11.3.3)
 */
export async function writePng(pixels: Uint8Array, width: number, height: number, texts: Record<string, string>): Promise<Uint8Array> {
  return withTexts(await threads.run({ pixels, width, height }), Object.entries(texts))
}

/** Pixels that a step has left, by their artifact. */
interface Left {
  pixels: string
  width: number
  height: number
  /** RGBA; else RGB. */
  hasAlpha?: boolean | undefined
}

/**
 * Pixels that a step has left, as `writePng` takes them.
 * @throws DarkroomError `artifact.missing`; `artifact.corrupt` when they are not as many as the size says
 */
export async function pixelsOf(
  { artifacts }: Pick<Tools, 'artifacts'>,
  { pixels, width, height, hasAlpha = false }: Left,
): Promise<Buffer> {
  const bytes = await artifacts.read(pixels)
  const channels = hasAlpha ? 4 : 3
  if (bytes.length !== width * height * channels)
    throw artifactError('corrupt', `pixels ${pixels} hold ${bytes.length} bytes, not ${width} · ${height} · ${channels}`)
  return bytes
}

/** A PNG of them. @throws DarkroomError as `pixelsOf` */
export const pngOf = async (tools: Pick<Tools, 'artifacts'>, left: Left, texts: Record<string, string>): Promise<Uint8Array> =>
  writePng(await pixelsOf(tools, left), left.width, left.height, texts)

/** Texts of a PNG by keyword. @throws Error when it is no PNG. */
export function readPngTexts(png: Uint8Array): Record<string, string> {
  if (pictureType(png) !== 'image/png') throw new Error('these bytes are no PNG')
  return Object.fromEntries(textsOf(png).texts)
}
