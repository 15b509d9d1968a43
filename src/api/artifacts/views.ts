/** Artifacts as HTTP shows them: by their SHA-256, with a link to their bytes. */
import { z } from 'zod'
import { sources } from '../../domains/postprocessing/texts/reading.ts'
import { PicturePin, Sha256 } from '../../domains/values.ts'

/** Path of an artifact's bytes. */
export const ArtifactUrl = z.string().meta({ example: '/v1/artifacts/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08' })

export const ArtifactLink = z.looseObject({ sha256: Sha256, url: ArtifactUrl })

export const urlOf = (sha256: string): string => `/v1/artifacts/${sha256}`

/** A picture that was uploaded, as it is kept. */
export const UploadView = PicturePin.extend({
  mediaType: z.literal('image/png'),
  bytes: z.int(),
  hasAlpha: z.boolean().meta({ description: 'whether anything of it is transparent' }),
  url: ArtifactUrl,
}).meta({ id: 'UploadedPicture' })

/** What a picture's own texts say of the request that it was drawn with. */
export const PictureRequestView = z
  .strictObject({
    source: z.enum(sources).meta({ description: 'the program whose text it is' }),
    workflow: z.literal('image-generation'),
    input: z.record(z.string(), z.unknown()).meta({ description: 'what POST /v1/sessions takes as `input`' }),
    modelHash: z.string().nullable().meta({ description: 'of the model that drew it, or its first digits, as the text has it' }),
    unread: z
      .array(z.strictObject({ name: z.string(), value: z.string(), why: z.string() }))
      .meta({ description: 'what the text says besides, and why it is not in the input' }),
  })
  .meta({ id: 'PictureRequest' })

const ArtifactRef = z.looseObject({ sha256: Sha256, mediaType: z.string() })

/** The same value; every artifact in it, at any depth, has its link as `url`. */
export function withLinks<T>(value: T): T {
  return link(value) as T
}

function link(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(link)
  if (typeof value !== 'object' || value === null) return value
  const fields = Object.fromEntries(Object.entries(value).map(([name, field]) => [name, link(field)]))
  const artifact = ArtifactRef.safeParse(value)
  return artifact.success ? { ...fields, url: urlOf(artifact.data.sha256) } : fields
}
