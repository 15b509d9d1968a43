/** The HTTP edge: request id, guard, keys, then routes that parse, call the engine and present its answer. */
import { randomUUID } from 'node:crypto'
import { OpenAPIHono } from '@hono/zod-openapi'
import type { MiddlewareHandler } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { cors } from 'hono/cors'
import { routePath } from 'hono/route'
import { apiError, fieldProblems, invalidFields } from '../errors.ts'
import { adminRoutes } from './admin.ts'
import { analyticsRoutes } from './analytics/routes.ts'
import { approvalRoutes, isByToken } from './approvals/routes.ts'
import { audited, auditRoutes } from './audit/routes.ts'
import { artifactRoutes } from './artifacts/routes.ts'
import { isUpload, mostUploadBytes } from './artifacts/upload.ts'
import { authenticate } from './auth.ts'
import { readBody } from './body.ts'
import { bulkRoutes } from './bulk/routes.ts'
import { commandRoutes } from './commands.ts'
import type { ApiParts, App, AppEnv } from './context.ts'
import { deviceEventRoutes } from './devices/events.ts'
import { deviceRoutes } from './devices/routes.ts'
import { docRoutes, openApiDocument, type OpenApiDocument } from './docs.ts'
import { guard } from './guard.ts'
import { healthRoutes } from './health/routes.ts'
import { itemRoutes } from './items/routes.ts'
import { keyRoutes } from './keys/routes.ts'
import { liveRoutes } from './live/routes.ts'
import { loginRoutes } from './login/routes.ts'
import { memoryRoutes } from './memory/routes.ts'
import { compatibleRoutes } from './models/compatible.ts'
import { Metrics } from './metrics/metrics.ts'
import { metricsRoutes } from './metrics/routes.ts'
import { modelPictureRoutes } from './models/picture.ts'
import { modelRoutes } from './models/routes.ts'
import { mayComeKeyless, pageRoutes } from './page.ts'
import { policyRoutes } from './policies/routes.ts'
import { answerProblem } from './problem.ts'
import { queueRoutes } from './queue/routes.ts'
import { roomRoutes } from './rooms/routes.ts'
import { singleParameters } from './route.ts'
import { eventRoutes } from './sessions/events.ts'
import { previewRoutes } from './sessions/preview.ts'
import { sessionRoutes } from './sessions/routes.ts'
import { holdWait } from './wait.ts'
import { usageRoutes } from './usage/routes.ts'
import { scheduleRoutes } from './schedules/routes.ts'
import { webhookRoutes } from './webhooks/routes.ts'
import { workerRoutes } from './workers/routes.ts'
import { workflowRoutes } from './workflows/routes.ts'

const maxBodyBytes = 1024 * 1024

/** Fixed paths that ask for no key: probes have none. */
const open = new Set(['/v1/health', '/v1/ready'])

const limitTo = (maxSize: number, remedy: string): MiddlewareHandler<AppEnv> =>
  bodyLimit({
    maxSize,
    onError: () => {
      throw apiError('too_large', `the body is larger than ${maxSize} bytes`, { field: 'body', remedy })
    },
  })
const limitBody = limitTo(maxBodyBytes, 'Send at most 1 MiB.')
const limitUpload = limitTo(mostUploadBytes, 'Send a file of at most 64 MiB.')

/** Tells a sender that waits for it to go on, takes no more than there may be, and looks whether it is JSON. */
const takeBody: MiddlewareHandler<AppEnv> = (c, next) => {
  if (c.req.header('expect')?.toLowerCase() === '100-continue') c.env.outgoing?.writeContinue()
  return isUpload(c.req) ? limitUpload(c, next) : limitBody(c, () => readBody(c, next) as Promise<void>)
}

const placeOf = { json: 'body', form: 'body', query: 'query', param: 'path', header: 'headers', cookie: 'cookies' } as const

export function createApp(parts: ApiParts): App {
  const { config, log } = parts
  const app = new OpenAPIHono<AppEnv>({
    defaultHook: (result) => {
      if (!result.success) throw invalidFields(fieldProblems(result.error.issues, placeOf[result.target]))
    },
  })

  const metrics = new Metrics(parts.engine)

  app.onError((error, c) => answerProblem(c, error, log))
  app.use(async (c, next) => {
    const startedAt = performance.now()
    const given = c.req.header('x-request-id')
    const requestId = given && /^[\w.-]{1,64}$/.test(given) ? given : randomUUID()
    c.set('requestId', requestId)
    c.header('X-Request-Id', requestId)
    c.header('X-Content-Type-Options', 'nosniff')
    c.header('Referrer-Policy', 'no-referrer')
    c.header('X-Frame-Options', 'DENY')
    c.header('Cross-Origin-Resource-Policy', 'same-origin')
    await next()
    if (!c.res.headers.has('Cache-Control')) c.header('Cache-Control', 'no-store')
    const ms = performance.now() - startedAt
    metrics.answered(c.req.method, routePath(c, -1), c.res.status, ms)
    log.debug({ requestId, method: c.req.method, path: c.req.path, status: c.res.status, ms: Math.round(ms) }, 'answered')
  })
  app.use(guard(config))
  if (config.allowedOrigins.length > 0) {
    const exposeHeaders = [
      'Location',
      'Preference-Applied',
      'Retry-After',
      'RateLimit',
      'RateLimit-Policy',
      'X-Request-Id',
      'ETag',
      'Content-Range',
      'Accept-Ranges',
    ]
    app.use(cors({ origin: config.allowedOrigins, exposeHeaders, maxAge: 600 }))
  }
  const withKey = authenticate(parts)
  const counting = holdWait(parts)
  // No body is read, and none is asked for, before its sender is known.
  const admit: MiddlewareHandler<AppEnv> = (c, next) =>
    withKey(c, () => counting(c, () => takeBody(c, next) as Promise<void>) as Promise<void>)
  app.use('/v1/*', (c, next) => {
    if (open.has(c.req.path)) return next()
    return mayComeKeyless(c.req) || isByToken(c.req.path) ? (takeBody(c, next) as Promise<void>) : admit(c, next)
  })
  app.use('/admin/*', admit)
  app.use('/metrics', admit)
  const audit = audited(parts)
  app.use('/v1/*', (c, next) => (open.has(c.req.path) ? next() : audit(c, next)))
  app.use('/admin/*', audit)
  app.use('/v1/*', singleParameters)

  // Redis answers the writes of the moment in which its disk fills up, and holds them in memory alone: a kill would
  // lose them. It refuses the next write, so none is acknowledged before another was taken.
  app.use('/v1/*', async (c, next) => {
    await next()
    if (c.req.method !== 'GET' && c.req.method !== 'HEAD' && c.res.ok) await parts.engine.confirm()
  })

  const resources = [
    sessionRoutes,
    itemRoutes,
    approvalRoutes,
    eventRoutes,
    previewRoutes,
    liveRoutes,
    loginRoutes,
    queueRoutes,
    usageRoutes,
    workflowRoutes,
    artifactRoutes,
    webhookRoutes,
    scheduleRoutes,
    bulkRoutes,
    auditRoutes,
    keyRoutes,
    workerRoutes,
    // Before devices, one of which would be called `events`.
    deviceEventRoutes,
    deviceRoutes,
    memoryRoutes,
    modelRoutes,
    modelPictureRoutes,
    compatibleRoutes,
    policyRoutes,
    analyticsRoutes,
    roomRoutes,
    commandRoutes,
    healthRoutes,
  ]
  for (const routes of resources) app.route('/v1', routes(parts))
  app.route('/', metricsRoutes(metrics))
  const document = openApiDocument(app, parts.engine)
  app.route('/', docRoutes(document))
  app.route('/', pageRoutes())
  app.route('/admin/queues', adminRoutes(parts))

  const methodsOf = methodTable(document)
  app.notFound((c) => {
    const methods = methodsOf(c.req.path)
    if (methods.length === 0) return answerProblem(c, apiError('not_found', `there is nothing at ${c.req.path.slice(0, 200)}`), log)
    c.header('Allow', methods.join(', '))
    return answerProblem(c, apiError('method_not_allowed', `${c.req.method} is not possible at ${c.req.path.slice(0, 200)}`), log)
  })
  return app
}

/** Which methods a path has, by the document; none for a path that there is not. */
function methodTable(document: OpenApiDocument): (path: string) => string[] {
  const table = Object.entries(document.paths ?? {}).map(([template, methods]) => ({
    pattern: new RegExp(`^${template.replaceAll('.', '\\.').replaceAll(/\{\w+\}/g, '[^/]+')}$`),
    methods: Object.keys(methods).map((method) => method.toUpperCase()),
  }))
  return (path) => [...new Set(table.filter(({ pattern }) => pattern.test(path)).flatMap(({ methods }) => methods))]
}
