/** What the header of a PNG in the store says (PNG, W3C, §11.2.1). */
import type { ArtifactStore } from './store.ts'

export interface PngHeader {
  width: number
  height: number
  hasAlpha: boolean
}

/** Signature and IHDR. */
const headBytes = 8 + 25
const truecolour = 2
const truecolourWithAlpha = 6

/** The first bytes of an artifact; none of what is not there. */
export async function headOf(artifacts: Pick<ArtifactStore, 'open'>, sha256: string): Promise<Buffer> {
  const artifact = await artifacts.open(sha256)
  if (!artifact) return Buffer.alloc(0)
  const reader = artifact.stream.getReader()
  const { value = new Uint8Array() } = await reader.read()
  await reader.cancel()
  return Buffer.from(value.subarray(0, headBytes))
}

/** Undefined for what is not there, and for what is no PNG of RGB or RGBA with 8 bits, which all pictures in it are. */
export async function pngHeader(artifacts: Pick<ArtifactStore, 'open'>, sha256: string): Promise<PngHeader | undefined> {
  const head = await headOf(artifacts, sha256)
  if (head.length < headBytes || head.toString('latin1', 1, 4) !== 'PNG' || head[24] !== 8) return undefined
  const colours = head[25]
  if (colours !== truecolour && colours !== truecolourWithAlpha) return undefined
  return { width: head.readUInt32BE(16), height: head.readUInt32BE(20), hasAlpha: colours === truecolourWithAlpha }
}
