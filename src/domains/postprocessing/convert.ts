import { z } from 'zod'
import { exifOf, mostExifBytes } from '../../artifacts/exif.ts'
import { withExif } from '../../artifacts/texts.ts'
import { invalidFields } from '../../errors.ts'
import { operation, type Tools } from '../operation.ts'
import { PictureId, PicturePin } from '../values.ts'
import { edited, editing, textsAfter } from './editing.ts'
import { postprocessingError } from './errors.ts'
import { completeConversion, Conversion, convertFields, PictureRef, problemOfSize, problemsOfConversion } from './settings.ts'
import { writePng } from './png.ts'

const Encoded = z.strictObject({ ...PicturePin.pick({ width: true, height: true }).shape, quality: z.int().nullable(), fileBytes: z.int() })

/**
 * Writes a picture in another format: as good as is asked for, or as fits into the bytes that it may have.
 * @throws DarkroomError `artifact.missing`, `artifact.corrupt`; `postprocessing.over_limit`, `.texts_too_long`,
 * `.side_too_long`, `.failed`
 */
export const convert = operation({
  ...editing,
  /** `keep`: whether the picture is a result; else it lasts as long as its session runs. */
  input: z.strictObject({ picture: PicturePin, convert: Conversion, keep: z.boolean() }),
  output: z
    .strictObject({
      images: z.array(PictureRef),
      quality: z.int().nullable().meta({ description: 'that it was written with; null for a PNG' }),
    })
    .meta({ id: 'ConvertedPicture' }),
  async run({ picture, convert: settings, keep }, tools) {
    const { width, height } = picture
    const file = await tools.artifacts.read(picture.sha256)
    const texts = textsOf(settings, textsAfter(file, picture, { convert: settings }))
    const { bytes, quality } = await made(file, texts, settings, tools)
    const sha256 = await tools.keep(bytes, keep ? 'image' : 'scratch')
    const mediaType = `image/${settings.format}` as const
    return { images: [{ sha256, mediaType, width, height, bytes: bytes.byteLength }], quality }
  },
  command: {
    title: 'Convert a picture',
    description:
      'Makes a PNG, JPEG, WebP or AVIF of a picture, in named or numbered quality, within a number of bytes where one is said, with the texts that tell of its request or without.',
    input: z.strictObject({ picture: PictureId.describe('id of the picture'), ...convertFields }),
    async resolve({ picture, ...said }, catalogue) {
      const { sha256, width, height } = await catalogue.picture(picture, 'input.picture')
      const tooLong = problemOfSize(said.format, { width, height })
      const problems = [...problemsOfConversion(said), ...(tooLong ? [{ field: 'format', message: tooLong }] : [])]
      if (problems.length > 0) throw invalidFields(problems.map(({ field, message }) => ({ field: `input.${field}`, message })))
      return { picture: { sha256, width, height }, convert: completeConversion(said), keep: true }
    },
    route: { method: 'post', path: '/images/convert', body: 'ConvertPicture', answers: 'The picture' },
  },
})

/** `reduce` leaves the text that other programs read. */
function textsOf({ metadata }: Conversion, texts: ReadonlyMap<string, string>): Map<string, string> {
  if (metadata === 'keep') return new Map(texts)
  return new Map([...texts].filter(([keyword]) => metadata === 'reduce' && keyword === 'parameters'))
}

interface Made {
  bytes: Uint8Array
  quality: number | null
}

/** @throws DarkroomError as the operation */
async function made(file: Buffer, texts: ReadonlyMap<string, string>, settings: Conversion, tools: Tools): Promise<Made> {
  const { format, maxBytes } = settings
  const exif = format === 'png' ? undefined : exifOf(texts)
  if (exif && exif.length > mostExifBytes)
    throw postprocessingError('texts_too_long', `the picture’s texts have ${exif.length} bytes, and EXIF has room for ${mostExifBytes}`, {
      field: 'metadata',
    })
  const asked = { ...settings, keepsExif: exif !== undefined }
  const { head, body } = await edited('convert-process.mjs', asked, exif ? withExif(file, exif) : file, tools)
  const { width, height, quality, fileBytes } = Encoded.parse(head)
  // The one PNG writer is here: of a PNG the pixels came back.
  const bytes = quality === null ? await writePng(body, width, height, Object.fromEntries(texts)) : body
  const length = quality === null ? bytes.byteLength : fileBytes
  if (maxBytes !== undefined && length > maxBytes) {
    const least = quality === null ? '' : ` even at quality ${quality}`
    throw postprocessingError('over_limit', `as ${format} it has ${length} bytes${least}, and maxBytes allows ${maxBytes}`, {
      field: 'maxBytes',
    })
  }
  return { bytes, quality }
}
