/** What `darkroom generate` has done to the images that it draws. */
import type { ImageRequest } from '../client/index.ts'
import type { Format, Quality } from '../domains/postprocessing/settings.ts'
import { invalidFields } from '../errors.ts'

/** What is done to each image that is drawn; nothing where nothing is said. @throws DarkroomError `api.invalid` */
export function postprocessOf({
  enhance: quality,
  format,
  maxBytes,
}: {
  enhance: Quality | undefined
  format: Format | undefined
  maxBytes: number | undefined
}): Pick<ImageRequest, 'postprocess'> {
  if (maxBytes !== undefined && format === undefined)
    throw invalidFields([{ field: 'maxBytes', message: 'is said of a format, and there is none: add --format' }])
  const stages = [
    ...(quality ? [{ enhance: { quality } }] : []),
    ...(format ? [{ convert: { format, ...(maxBytes !== undefined && { maxBytes }) } }] : []),
  ]
  return stages.length > 0 ? { postprocess: stages } : {}
}
