/** The OpenAPI 3.1 document and its reference page, which needs nothing from outside. */
import { createReadStream } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { Hono } from 'hono'
import type { App, AppEnv, EnginePort } from './context.ts'
import { jsonSchema } from './json-schema.ts'

export type OpenApiDocument = ReturnType<App['getOpenAPI31Document']>

const description = `Durable image generation. Submit a session, follow its events, fetch its pictures.

Errors are \`application/problem+json\` (RFC 9457) with a \`code\`, the \`field\` at fault and a \`remedy\`. Every response carries \`X-Request-Id\`.
Where API keys exist, send \`Authorization: Bearer KEY\`; a key sees its own sessions.`

/** The document of all routes, with the input schema of every workflow in the body of a submission. */
export function openApiDocument(app: App, engine: Pick<EnginePort, 'workflows'>): OpenApiDocument {
  app.openAPIRegistry.registerComponent('securitySchemes', 'key', {
    type: 'http',
    scheme: 'bearer',
    description: 'an API key from `darkroom keys add`',
  })
  const document = app.getOpenAPI31Document({
    openapi: '3.1.0',
    info: { title: 'Darkroom', version: '1', description, license: { name: 'Apache-2.0' } },
  })
  const schemas = (document.components ??= {}).schemas ?? {}
  const inputs = engine.workflows().map(({ name, version, input }) => {
    const { $schema: _, ...schema } = jsonSchema(input, 'input')
    const component = `${name}.${version}.input`
    schemas[component] = { title: `Input of ${name}@${version}`, ...schema }
    return { $ref: `#/components/schemas/${component}` }
  })
  const submission = schemas['SubmitSession']
  if (submission && 'properties' in submission && submission.properties && inputs.length > 0)
    submission.properties['input'] = { anyOf: inputs }
  return document
}

const dist = dirname(createRequire(import.meta.url).resolve('swagger-ui-dist/package.json'))
const assets: Record<string, string> = {
  'swagger-ui.css': 'text/css; charset=utf-8',
  'swagger-ui-bundle.js': 'text/javascript; charset=utf-8',
  'favicon-32x32.png': 'image/png',
}

const page = `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Darkroom API</title>
    <link rel="icon" href="/docs/favicon-32x32.png">
    <link rel="stylesheet" href="/docs/swagger-ui.css">
  </head>
  <body>
    <main id="reference"></main>
    <script src="/docs/swagger-ui-bundle.js"></script>
    <script src="/docs/start.js"></script>
  </body>
</html>
`

const start = `SwaggerUIBundle({ url: '/openapi.json', dom_id: '#reference', deepLinking: true, validatorUrl: null, tryItOutEnabled: true })
`

const policy =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

export function docRoutes(document: OpenApiDocument): Hono<AppEnv> {
  const text = JSON.stringify(document)
  return new Hono<AppEnv>()
    .get('/openapi.json', (c) => c.body(text, 200, { 'Content-Type': 'application/json' }))
    .get('/docs', (c) => c.html(page, 200, { 'Content-Security-Policy': policy }))
    .get('/docs/start.js', (c) => c.body(start, 200, { 'Content-Type': 'text/javascript; charset=utf-8' }))
    .get('/docs/:file', (c) => {
      const file = c.req.param('file')
      const type = Object.hasOwn(assets, file) ? assets[file] : undefined
      if (type === undefined) return c.notFound()
      const headers = { 'Content-Type': type, 'Cache-Control': 'public, max-age=86400' }
      return c.body(Readable.toWeb(createReadStream(join(dist, file))) as ReadableStream<Uint8Array>, 200, headers)
    })
}
