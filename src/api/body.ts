/** Requests without a body. */
import type { Context } from 'hono'
import { apiError, invalidFields } from '../errors.ts'
import type { AppEnv } from './context.ts'

/**
 * A verb takes no fields: a caller that sends one would be misunderstood.
 * @throws DarkroomError `api.malformed`, `api.invalid`
 */
export async function refuseBody(c: Context<AppEnv>): Promise<void> {
  const text = (await c.req.text()).trim()
  if (text === '') return
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch (error) {
    throw apiError('malformed', 'the body is not well-formed JSON', { cause: error })
  }
  const fields = typeof body === 'object' && body !== null && !Array.isArray(body) ? Object.keys(body) : ['body']
  if (fields.length > 0) throw invalidFields(fields.map((field) => ({ field, message: 'this request takes no body fields' })))
}
