import { z } from 'zod'
import { operation } from '../operation.ts'
import { PictureId, PicturePin } from '../values.ts'
import { edited, editing, textsAfter } from './editing.ts'
import { writePng } from './png.ts'
import { completeEnhancement, enhanceFields, Enhancement, Measures, PictureRef, seeded } from './settings.ts'

const Measured = z.strictObject({ before: Measures, after: Measures })

/**
 * Changes what a picture looks like: noise, levels, colours, sharpness, grain. The same settings make the same bytes.
 * @throws DarkroomError `artifact.missing`, `artifact.corrupt`; `postprocessing.failed`
 */
export const enhance = operation({
  ...editing,
  /** `keep`: whether the picture is a result; else it lasts as long as its session runs. */
  input: z.strictObject({ picture: PicturePin, enhance: Enhancement, keep: z.boolean() }),
  output: Measured.extend({ images: z.array(PictureRef) }).meta({ id: 'EnhancedPicture' }),
  async run({ picture, enhance: settings, keep }, tools) {
    const file = await tools.artifacts.read(picture.sha256)
    const { head, body } = await edited('enhance-process.mjs', settings, file, tools)
    const { width, height } = picture
    const png = await writePng(body, width, height, Object.fromEntries(textsAfter(file, picture, { enhance: settings })))
    const sha256 = await tools.keep(png, keep ? 'image' : 'scratch')
    return { images: [{ sha256, mediaType: 'image/png' as const, width, height, bytes: png.byteLength }], ...Measured.parse(head) }
  },
  command: {
    title: 'Enhance a picture',
    description:
      'Removes noise, spreads levels, changes contrast, temperature and saturation, sharpens, adds grain: each as strongly as is said, in this order. Its sharpness, noise and clipping are measured before and after.',
    input: z.strictObject({ picture: PictureId.describe('id of the picture'), ...enhanceFields }),
    async resolve({ picture, ...said }, catalogue) {
      const { sha256, width, height } = await catalogue.picture(picture, 'input.picture')
      return {
        picture: { sha256, width, height },
        enhance: seeded(completeEnhancement(said), () => catalogue.draw(2 ** 32)),
        keep: true,
      }
    },
    route: { method: 'post', path: '/images/enhance', body: 'EnhancePicture', answers: 'The picture, and its measures' },
  },
})
