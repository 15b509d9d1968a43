/** What `darkroom generate` has done to the images that it draws. */
import type { ImageRequest } from '../client/index.ts'
import type { Format, Quality } from '../domains/postprocessing/settings.ts'
import { invalidFields } from '../errors.ts'

/** What is done to each image that is drawn; nothing where nothing is said. @throws DarkroomError `api.invalid` */
export function postprocessOf({
  upscale: factor,
  upscaleBy: upscaler,
  enhance: quality,
  format,
  maxBytes,
}: {
  upscale: number | true | undefined
  upscaleBy: string | undefined
  enhance: Quality | undefined
  format: Format | undefined
  maxBytes: number | undefined
}): Pick<ImageRequest, 'postprocess'> {
  if (maxBytes !== undefined && format === undefined)
    throw invalidFields([{ field: 'maxBytes', message: 'is said of a format, and there is none: add --format' }])
  if (upscaler !== undefined && factor === undefined)
    throw invalidFields([{ field: 'upscaleBy', message: 'is said of a larger picture, and there is none: add --upscale' }])
  const stages = [
    ...(factor === undefined ? [] : [{ upscale: { ...(factor !== true && { factor }), ...(upscaler !== undefined && { upscaler }) } }]),
    ...(quality ? [{ enhance: { quality } }] : []),
    ...(format ? [{ convert: { format, ...(maxBytes !== undefined && { maxBytes }) } }] : []),
  ]
  return stages.length > 0 ? { postprocess: stages } : {}
}
