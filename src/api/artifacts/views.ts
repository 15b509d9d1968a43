/** Artifacts as HTTP shows them: by their SHA-256, with a link to their bytes. */
import { z } from 'zod'
import { Sha256 } from '../../domains/values.ts'

/** Path of an artifact's bytes. */
export const ArtifactUrl = z.string().meta({ example: '/v1/artifacts/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08' })

export const ArtifactLink = z.looseObject({ sha256: Sha256, url: ArtifactUrl })

export const urlOf = (sha256: string): string => `/v1/artifacts/${sha256}`

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
