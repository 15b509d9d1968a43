/** Bodies that are a file: the file itself, or a form with one. All other bodies are JSON. */
import type { Context } from 'hono'
import { pictureLimits, pictureTypes } from '../../artifacts/picture.ts'
import { apiError } from '../../errors.ts'
import type { AppEnv } from '../context.ts'

export const uploadPath = '/v1/artifacts'
export const formType = 'multipart/form-data'
/** Of a body that is a file; of programs that do not know what they send, too. */
const fileTypes: readonly string[] = [...pictureTypes, 'image/jpg', 'application/octet-stream']
/** What a form takes besides its file, bytes. */
const formBytes = 4096

export const mostUploadBytes = pictureLimits.bytes + formBytes

/** Whether a request sends a file. */
export const isUpload = ({ method, path }: { method: string; path: string }): boolean => method === 'POST' && path === uploadPath

/** What is wrong with the media type of such a body; undefined where nothing is. Its bytes say what it is. */
export function problemOfUploadType(essence: string | undefined): string | undefined {
  if (essence !== undefined && (essence === formType || fileTypes.includes(essence))) return undefined
  const sent = essence ? `a body of type ${JSON.stringify(essence)} is no picture` : 'the body has no Content-Type'
  return `${sent}: send one of ${[...pictureTypes, formType].join(', ')}`
}

/**
 * The bytes of the file.
 * @throws DarkroomError `api.malformed` for a broken form, `api.invalid` for one without a file or with more
 */
export async function fileOf(c: Context<AppEnv>): Promise<Uint8Array> {
  const type = c.req.header('content-type') ?? ''
  if (!type.toLowerCase().startsWith(formType)) return new Uint8Array(await c.req.arrayBuffer())
  const form = await c.req.formData().catch((error: unknown) => {
    throw apiError('malformed', 'the body is no well-formed multipart/form-data', { field: 'body', cause: error })
  })
  const [field, ...more] = [...form]
  if (!field) throw apiError('invalid', 'the form has no field `file`', { field: 'file' })
  for (const [name, value] of [field, ...more])
    if (name !== 'file' || typeof value === 'string')
      throw apiError('invalid', `${name}: the form may have one field, \`file\`, which is a file`, { field: name })
  if (more.length > 0) throw apiError('invalid', `the form has ${1 + more.length} files: send one a request`, { field: 'file' })
  const [, file] = field
  return new Uint8Array(await (file as File).arrayBuffer())
}
