/** Errors as RFC 9457 problem documents: the one table from codes to HTTP statuses. */
import { STATUS_CODES } from 'node:http'
import { z } from 'zod'
import type { Context } from 'hono'
import { HTTPException } from 'hono/http-exception'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import { apiError, asDiskError, cut, DarkroomError, type ErrorClass } from '../errors.ts'
import { limitNames, type Reached } from '../limits.ts'
import type { Logger } from '../log.ts'
import type { AppEnv } from './context.ts'

const statusOfCode: Record<string, ContentfulStatusCode> = {
  'api.malformed': 400,
  'api.unauthorized': 401,
  'api.forbidden': 403,
  'api.origin_refused': 403,
  'api.forwarded_refused': 403,
  'workflow.forbidden': 403,
  'api.board_read_only': 403,
  'api.not_found': 404,
  'session.unknown': 404,
  'session.no_preview': 404,
  'workflow.unknown': 404,
  'webhook.unknown': 404,
  'bulk.unknown': 404,
  'schedule.unknown': 404,
  'artifact.unknown': 404,
  'artifact.untold': 404,
  'artifact.no_thumbnail': 404,
  'model.no_picture': 404,
  'device.unknown': 404,
  'memory.unknown': 404,
  'api.method_not_allowed': 405,
  'safety.policy_unknown': 404,
  'safety.withheld': 403,
  'safety.policy_conflict': 409,
  'safety.nothing_before': 409,
  'safety.policies_full': 409,
  'session.ended': 409,
  'session.not_ended': 409,
  'session.not_retryable': 409,
  'session.no_items': 409,
  'session.no_results': 409,
  'session.not_forkable': 409,
  'approval.unknown': 404,
  'approval.expired': 410,
  'approval.used': 409,
  'approval.late': 409,
  'approval.too_many': 409,
  'session.checkpoint_gone': 409,
  'workflow.changed': 409,
  'workflow.no_folder': 409,
  'session.not_waiting': 409,
  'session.other_key': 409,
  'key.unknown': 404,
  'model.changed': 409,
  'model.unusable': 422,
  'model.unknown': 422,
  'model.ambiguous': 409,
  'device.not_ready': 409,
  'device.unavailable': 409,
  'artifact.missing': 410,
  'artifact.corrupt': 410,
  'api.timed_out': 408,
  'api.too_large': 413,
  'api.unsupported_media_type': 415,
  'artifact.format': 415,
  'artifact.too_many_pixels': 413,
  'model.picture_too_large': 413,
  'artifact.range': 416,
  'api.expectation_failed': 417,
  'api.host_refused': 421,
  'api.upgrade_required': 426,
  'api.headers_too_large': 431,
  ...Object.fromEntries(limitNames.map((name) => [`limit.${name}`, 429 as const])),
  'api.invalid': 422,
  'memory.quota': 429,
  'webhook.too_many': 429,
  'bulk.too_many': 429,
  'schedule.too_many': 429,
  'session.idempotency_mismatch': 422,
  'api.failed': 500,
  'workflow.broken': 500,
  'redis.unsafe': 500,
  'config.invalid': 500,
}

const statusOfClass: Record<ErrorClass, ContentfulStatusCode> = { transient: 503, resource: 503, permanent: 422, cancelled: 409 }

/** Seconds after which a 503 is worth another try. */
const retryAfterS: Record<string, number> = { 'redis.full': 60, 'disk.full': 60, 'memory.quota': 10, 'api.not_ready': 5 }

/** Codes that are 404 for a name in the path, and 422 for a name in a field. */
const namedByFields = new Set([
  'workflow.unknown',
  'device.unknown',
  'memory.unknown',
  'artifact.unknown',
  'webhook.unknown',
  'safety.policy_unknown',
])

/** The HTTP status of an error. */
export function statusOf(error: DarkroomError): ContentfulStatusCode {
  if (namedByFields.has(error.code) && error.field !== undefined) return 422
  return statusOfCode[error.code] ?? statusOfClass[error.class]
}

/** Most characters of a detail: a name of the request that it quotes may be long. */
const maxDetail = 9000

const FieldProblem = z.strictObject({ field: z.string(), message: z.string() })

export const Problem = z
  .strictObject({
    type: z.string().meta({ description: '`urn:darkroom:` and the code' }),
    title: z.string(),
    status: z.int(),
    detail: z.string().meta({ description: 'what was wrong, in words' }),
    code: z.string().meta({ example: 'session.unknown' }),
    class: z.enum(['transient', 'resource', 'permanent', 'cancelled']),
    field: z.string().optional().meta({ description: 'the first field at fault' }),
    remedy: z.string().meta({ description: 'what to do about it' }),
    requestId: z.string(),
    problems: z
      .array(FieldProblem)
      .optional()
      .meta({ description: 'the fields at fault, twenty at most; `detail` says how many more there are' }),
    reasons: z.array(z.string()).optional().meta({ description: 'why the farm is not ready' }),
  })
  .meta({ id: 'Problem' })
export type Problem = z.infer<typeof Problem>

const Details = z.looseObject({ problems: z.array(FieldProblem).optional(), reasons: z.array(z.string()).optional() })

/** The document itself. Only `problems` and `reasons` of the details go out: the rest is for the log. */
export function describe(error: DarkroomError, requestId: string): Problem {
  const status = statusOf(error)
  const details = Details.safeParse(error.details ?? {}).data
  const field = error.field ?? details?.problems?.[0]?.field
  return {
    type: `urn:darkroom:${error.code}`,
    title: STATUS_CODES[status] ?? 'Error',
    status,
    detail: cut(error.message, maxDetail),
    code: error.code,
    class: error.class,
    ...(field !== undefined && { field }),
    remedy: error.remedy,
    requestId,
    ...(details?.problems && { problems: details.problems }),
    ...(details?.reasons && { reasons: details.reasons }),
  }
}

/** A thrown value as an error of the catalogue. The text of an unknown error goes to the log alone. */
function translate(thrown: unknown): DarkroomError {
  if (thrown instanceof DarkroomError) return thrown
  if (thrown instanceof HTTPException) {
    if (thrown.status === 400) return apiError('malformed', 'the body is not well-formed JSON', { cause: thrown })
    if (thrown.status === 413) return apiError('too_large', 'the body is too large', { cause: thrown })
    if (thrown.status === 415) return apiError('unsupported_media_type', 'this content type is not accepted', { cause: thrown })
  }
  const known = asDiskError(thrown)
  return known instanceof DarkroomError ? known : apiError('failed', 'the request failed inside the API', { cause: thrown })
}

/** An answer to a request that never reaches the app: it has no context. */
export interface BareAnswer {
  status: number
  headers: Record<string, string>
  body: string
}

/** The problem document of an error as such an answer. */
export function bareProblem(error: DarkroomError, requestId: string): BareAnswer {
  const body = JSON.stringify(describe(error, requestId))
  return {
    status: statusOf(error),
    headers: {
      'Content-Type': 'application/problem+json',
      'Content-Length': String(Buffer.byteLength(body)),
      'Cache-Control': 'no-store',
      'X-Content-Type-Options': 'nosniff',
      'X-Request-Id': requestId,
    },
    body,
  }
}

/** A limit that is reached, as draft-ietf-httpapi-ratelimit-headers says it; that of requests is for a minute. */
function limitHeaders({ limit, most, retryAfterS }: Reached): Record<string, string> {
  const window = limit === 'requests' ? ';w=60' : ''
  return {
    'Retry-After': String(retryAfterS),
    'RateLimit-Policy': `"${limit}";q=${most}${window}`,
    RateLimit: `"${limit}";r=0;t=${retryAfterS}`,
  }
}

/** Answers a thrown value with its problem document. A defect is logged. */
export function answerProblem(c: Context<AppEnv>, thrown: unknown, log: Logger): Response {
  // Nobody hears it; and a body that was cut is no defect of ours.
  const isCut = c.env.incoming?.complete === false && c.env.incoming.destroyed && !(thrown instanceof DarkroomError)
  const error = isCut ? apiError('malformed', 'the connection ended before the request did', { cause: thrown }) : translate(thrown)
  const requestId = c.get('requestId')
  const status = statusOf(error)
  if (error.code === 'api.failed')
    log.error({ requestId, method: c.req.method, path: c.req.path, err: error.cause ?? error }, 'request failed')
  if (error.code.startsWith('limit.'))
    for (const [name, value] of Object.entries(limitHeaders(error.details as unknown as Reached))) c.header(name, value)
  else if (status === 503 || status === 429) c.header('Retry-After', String(retryAfterS[error.code] ?? 1))
  if (status === 401)
    c.header('WWW-Authenticate', c.req.path.startsWith('/admin') ? 'Basic realm="darkroom", charset="UTF-8"' : 'Bearer realm="darkroom"')
  c.header('Cache-Control', 'no-store')
  c.header('Content-Type', 'application/problem+json')
  return c.body(JSON.stringify(describe(error, requestId)), status)
}
