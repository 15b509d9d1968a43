/** The request of a picture's file, as `image-generation` takes it. */
import { readRequest } from '../domains/postprocessing/texts/index.ts'
import type { Source, Unread } from '../domains/postprocessing/texts/reading.ts'
import { artifactError } from '../errors.ts'
import { imageGeneration } from './built-in/image-generation.ts'

export interface PictureRequest {
  source: Source
  workflow: 'image-generation'
  /** What a client may send as it is. */
  input: Record<string, unknown>
  /** Of the model that drew it, or the first digits of it, as the text has it. */
  modelHash: string | null
  unread: Unread[]
}

/** Fields that may be out of range, one after the other. */
const mostFaults = 50

/**
 * Reads the texts of a PNG, JPEG or WebP. What the form of the workflow would refuse is left out, and said.
 * @throws DarkroomError `artifact.untold` where nothing in the file tells of a request
 */
export function requestOfFile(file: Uint8Array): PictureRequest {
  const { reading, broken } = readRequest(file)
  if (!reading) {
    const why = broken.map(({ name, why: reason }) => `; its text \`${name}\` cannot be read: ${reason}`).join('')
    throw artifactError('untold', `nothing in the picture tells of the request that it was drawn with${why}`)
  }
  const { source, modelHash, unread } = reading
  const input = structuredClone({ prompt: '', ...reading.input }) as Record<string, unknown>
  const refused: Unread[] = []
  for (let faults = 0; faults < mostFaults; faults++) {
    const [issue] = imageGeneration.input.safeParse(input).error?.issues ?? []
    const [field, inner] = issue?.path ?? []
    if (!issue || typeof field !== 'string' || !(field in input)) break
    const value = input[field]
    const isInner = typeof inner === 'string' && typeof value === 'object' && value !== null && inner in value
    const place = isInner ? (value as Record<string, unknown>) : input
    const name = isInner ? inner : field
    refused.push({ name: isInner ? `${field}.${inner}` : field, value: JSON.stringify(place[name]).slice(0, 200), why: issue.message })
    delete place[name]
  }
  return { source, workflow: 'image-generation', input, modelHash, unread: [...unread, ...broken, ...refused] }
}
