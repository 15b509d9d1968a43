/** Artifacts as HTTP shows them: by their SHA-256, with a link to their bytes. */
import { z } from 'zod'
import { Sha256 } from '../../domains/values.ts'

export const ArtifactLink = z.looseObject({
  sha256: Sha256,
  url: z.string().meta({ example: '/v1/artifacts/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08' }),
})

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
  return artifact.success ? { ...fields, url: `/v1/artifacts/${artifact.data.sha256}` } : fields
}
