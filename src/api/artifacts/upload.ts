/** Bodies that are a file: the file itself, a form with one, or the URL of one. All other bodies are JSON. */
import type { Context } from 'hono'
import { z } from 'zod'
import { pictureLimits, pictureTypes } from '../../artifacts/picture.ts'
import { fetchPicture } from '../../artifacts/remote.ts'
import { apiError, fieldProblems, invalidFields } from '../../errors.ts'
import type { AppEnv } from '../context.ts'

export const uploadPath = '/v1/artifacts'
export const formType = 'multipart/form-data'
/** Of a body that is a file; of programs that do not know what they send, too. */
const fileTypes: readonly string[] = [...pictureTypes, 'image/jpg', 'application/octet-stream']
const urlType = 'application/json'
/** What a form takes besides its file, bytes. */
const formBytes = 4096

export const mostUploadBytes = pictureLimits.bytes + formBytes

/** Whether a request sends a file. */
export const isUpload = ({ method, path }: { method: string; path: string }): boolean => method === 'POST' && path === uploadPath

/** What is wrong with the media type of such a body; undefined where nothing is. Its bytes say what it is. */
export function problemOfUploadType(essence: string | undefined): string | undefined {
  if (essence !== undefined && (essence === formType || essence === urlType || fileTypes.includes(essence))) return undefined
  const sent = essence ? `a body of type ${JSON.stringify(essence)} is no picture` : 'the body has no Content-Type'
  return `${sent}: send one of ${[...pictureTypes, formType].join(', ')}, or ${urlType} with the URL of one`
}

/** A body that names a picture by its URL. */
export const PictureUrl = z.strictObject({
  url: z.string().min(1).max(2000).meta({ description: 'https, on a host that the operator allows; redirects are not followed' }),
})

/**
 * The bytes of the file.
 * @throws DarkroomError `api.malformed` for a broken form or JSON, `api.invalid` for one without a file or with more;
 * as `fetchPicture`
 */
export async function fileOf(c: Context<AppEnv>, config: Parameters<typeof fetchPicture>[1]['config']): Promise<Uint8Array> {
  const type = c.req.header('content-type') ?? ''
  if (type.toLowerCase().startsWith(urlType)) return fetchPicture(await urlIn(c), { config })
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

async function urlIn(c: Context<AppEnv>): Promise<string> {
  const body = await c.req.json<unknown>().catch((error: unknown) => {
    throw apiError('malformed', 'the body is no well-formed JSON', { field: 'body', cause: error })
  })
  const parsed = PictureUrl.safeParse(body)
  if (!parsed.success) throw invalidFields(fieldProblems(parsed.error.issues, 'body'))
  return parsed.data.url
}
