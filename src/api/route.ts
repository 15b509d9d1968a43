/** Parts of the description of every route: its problems, its security, its parameters. */
import type { MiddlewareHandler } from 'hono'
import { z } from 'zod'
import { invalidFields, type FieldProblem } from '../errors.ts'
import { Problem } from './problem.ts'

const meanings = {
  400: 'Malformed',
  401: 'No valid API key',
  403: 'Refused: origin, proxy, or a scope that the key lacks',
  404: 'Unknown',
  405: 'Method not allowed',
  408: 'The request came too slowly',
  409: 'The state does not allow it',
  410: 'The bytes are gone',
  413: 'Too large',
  415: 'Content type not accepted',
  416: 'No such bytes',
  417: 'Expectation not met',
  421: 'Host not accepted',
  422: 'Fields at fault',
  426: 'A WebSocket is asked for',
  429: 'A limit of the API key is reached: see Retry-After, RateLimit-Policy and RateLimit',
  431: 'Headers too large',
  500: 'Failed',
  503: 'Unavailable, full or not ready: see Retry-After',
} as const
type ProblemStatus = keyof typeof meanings

const content = { 'application/problem+json': { schema: Problem } }

/** Responses that every route may give (HTTP itself, guard, keys, Redis), and those named. */
export function problems<const S extends ProblemStatus = never>(...more: S[]) {
  const every = [400, 401, 403, 408, 413, 415, 417, 421, 422, 429, 431, 500, 503] as const
  const all: ProblemStatus[] = [...every, ...more]
  return Object.fromEntries(all.map((status) => [status, { description: meanings[status], content }]))
}

/** Routes that ask for an API key where keys exist. */
export const keyed = { security: [{ key: [] }] }

/**
 * Middleware: refuses parameters that a schema would not see (`__proto__`, one without a name) and those that stand
 * twice, as either value could be meant.
 * @throws DarkroomError `api.invalid`
 */
export const singleParameters: MiddlewareHandler = async (c, next) => {
  const seen = new Set<string>()
  const faults: FieldProblem[] = []
  for (const name of new URL(c.req.url).searchParams.keys()) {
    if (name === '__proto__' || name === '') faults.push({ field: name || 'query', message: 'there is no such field' })
    else if (seen.has(name)) faults.push({ field: name, message: 'stands twice' })
    seen.add(name)
  }
  if (faults.length > 0) throw invalidFields(faults)
  await next()
}

/** A route without query parameters refuses every one. */
export const noQuery = z.strictObject({})

export const idParam = z.object({ id: z.string().meta({ param: { name: 'id', in: 'path' }, description: 'session id' }) })

/** How many entries a page has at most. */
export const pageLimit = (max: number, usual: number) =>
  z
    .string()
    .regex(/^\d{1,15}$/, `must be a whole number from 1 to ${max}`)
    .transform(Number)
    .pipe(z.int().min(1, 'must be at least 1').max(max, `must be at most ${max}`))
    .default(usual)
    .meta({ type: 'integer', minimum: 1, maximum: max, default: usual })

/** @returns a JSON response of a route. */
export const json = <S extends z.ZodType>(description: string, schema: S) => ({ description, content: { 'application/json': { schema } } })
