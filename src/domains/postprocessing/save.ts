import { z } from 'zod'
import { blurred } from '../../artifacts/blur.ts'
import { operation, type Tools } from '../operation.ts'
import { Count, Exactness, ImageRef, ImageRequest, PicturePin, Sha256 } from '../values.ts'
import { pictureOf, pixelsOf, writePng } from './png.ts'
import { Judgement, keepScores } from './safety/judgement.ts'
import { infotext } from './texts/a1111.ts'
import type { Receipt } from './texts/receipt.ts'

/** `safety`: what policies say of it, where some apply. */
export const SavedImage = ImageRef.extend({ safety: Judgement.optional() })
export type SavedImage = z.infer<typeof SavedImage>

/**
 * Pixels to a PNG with its own receipt. Of what a policy has blurred, a blur is kept and nothing else; what one has
 * blocked is kept for operators alone, for a while, and no session names it.
 * @throws DarkroomError `artifact.missing` when the pixels are gone: the machine draws them again.
 */
export const save = operation({
  lane: 'host',
  ahead: true,
  attempts: 3,
  timeoutMs: 600_000,
  /**
   * `request` is the image request alone: it goes into the file, so it holds nothing of the session. `workflow` is the
   * one that draws, `name@version`; without it, as sessions of an older version of Darkroom ask, the receipt names
   * `image-generation@1`.
   */
  input: PicturePin.pick({ width: true, height: true }).extend({
    pixels: Sha256,
    workflow: z.string().default('image-generation@1'),
    request: ImageRequest,
    exactness: Exactness,
    safety: Judgement.optional(),
    /** How long a blocked picture can be seen by operators, seconds. */
    blockedForS: Count.optional(),
  }),
  output: SavedImage,
  async run({ pixels, width, height, workflow, request, exactness, safety, blockedForS = 0 }, tools) {
    const about = { mediaType: 'image/png' as const, width, height, seed: request.seed }
    if (safety?.action === 'blur') {
      const blur = await blurred(await pixelsOf(tools, { pixels, width, height }), width, height)
      const { name, version } = safety.policy
      const png = await writePng(blur, width, height, { Comment: `Blurred by policy ${name}, version ${version}` })
      const sha256 = await tools.keep(png, 'image')
      await keepJudgement(tools, sha256, safety)
      return { sha256, ...about, bytes: png.byteLength, safety }
    }
    const receipt: Receipt = { workflow, input: request, exactness }
    const texts = { parameters: infotext(request), darkroom: JSON.stringify(receipt) }
    const left = { pixels, width, height }
    const png =
      safety?.action === 'block' ? await writePng(await pixelsOf(tools, left), width, height, texts) : await pictureOf(tools, left, texts)
    const sha256 = png instanceof Uint8Array ? await tools.withhold(png, blockedForS) : await tools.keep(png, 'image')
    if (safety && (safety.action !== 'block' || blockedForS > 0)) await keepJudgement(tools, sha256, safety)
    return { sha256, ...about, bytes: png.byteLength, ...(safety && { safety }) }
  },
})

/** So that it can be judged again without being looked at again. */
const keepJudgement = (tools: Tools, sha256: string, { scores, classifiers, action, policy, rule }: Judgement): Promise<void> =>
  keepScores(tools.artifacts, sha256, { scores, classifiers, was: { action, policy, rule } })
