/** What becomes of a picture that was enlarged: how its file is asked for. Pure. */
import type { z } from 'zod'
import type { postprocessing } from '../../domains/postprocessing/index.ts'
import type { Enlargement } from '../../domains/postprocessing/settings.ts'
import type { PicturePin } from '../../domains/values.ts'

/** Pixels, with what was found out: which network it is, and the side of its tiles where pixels follow from it. */
export type Enlarged = z.infer<(typeof postprocessing)['postprocessing.upscale']['output']>

/** `keep`: whether it is a result; else it lasts as long as its session runs. */
export function keepEnlarged({ picture, ...asked }: Enlargement & { picture: PicturePin }, made: Enlarged | null, keep: boolean) {
  const { tile: _asked, ...same } = asked
  const { pixels = '', hasAlpha = false, network = null, tile = null, exactness = { key: '', facts: {} } } = made ?? {}
  const done = { upscale: { ...same, ...(network !== null && { network }), ...(tile !== null && { tile }) } }
  return { pixels, width: asked.width, height: asked.height, hasAlpha, of: picture, done, exactness, keep }
}
