import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { samplers, schedules } from '../../src/domains/samplers.ts'
import { workflows as builtIn } from '../../src/workflows/index.ts'
import { ApiClient, ResponseValidator } from '../support/http.ts'
import { sketchOf, startHarness, type Harness } from './harness.ts'

interface Operation {
  summary?: string
  tags?: string[]
  security?: unknown
  responses: Record<string, { content?: unknown }>
}

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

describe('the OpenAPI document', () => {
  it('is 3.1 and names every route of the API', async () => {
    const { json } = await h.client.get('/openapi.json')
    expect(json.openapi).toBe('3.1.0')
    const commands = builtIn.flatMap(({ route }) => (route ? [`/v1${route.path}`] : []))
    expect(commands).toContain('/v1/memory/copy')
    const reads = [
      '/v1/approvals/{token}',
      '/metrics',
      '/v1/artifacts',
      '/v1/artifacts/{sha256}',
      '/v1/artifacts/{sha256}/request',
      '/v1/audit',
      '/v1/bulk',
      '/v1/bulk/count',
      '/v1/bulk/{id}',
      '/v1/bulk/{id}/stop',
      '/v1/devices',
      '/v1/devices/default',
      '/v1/devices/events',
      '/v1/devices/{id}',
      '/v1/devices/{id}/history',
      '/v1/devices/{id}/memory',
      '/v1/devices/{id}/status',
      '/v1/health',
      '/v1/images/analytics',
      '/v1/keys',
      '/v1/keys/{id}',
      '/v1/live',
      '/v1/login',
      '/v1/memory',
      '/v1/memory/allocations',
      '/v1/memory/allocations/{id}',
      '/v1/memory/analytics',
      '/v1/memory/leaks',
      '/v1/memory/models',
      '/v1/memory/recommendations',
      '/v1/models',
      '/v1/models/rescan',
      '/v1/models/{model}',
      '/v1/models/{model}/annotation',
      '/v1/models/{model}/compatible',
      '/v1/models/{model}/picture',
      '/v1/models/{model}/status',
      '/v1/queue',
      '/v1/queue/pause',
      '/v1/queue/resume',
      '/v1/policies',
      '/v1/policies/applied/{who}',
      '/v1/policies/{name}',
      '/v1/policies/{name}/activate',
      '/v1/policies/{name}/differences',
      '/v1/policies/{name}/rollback',
      '/v1/policies/{name}/try',
      '/v1/policies/{name}/versions/{version}',
      '/v1/ready',
      '/v1/rooms/{room}',
      '/v1/schedules',
      '/v1/schedules/{id}',
      '/v1/schedules/{id}/pause',
      '/v1/schedules/{id}/resume',
      '/v1/sessions',
      '/v1/sessions/{id}',
      '/v1/sessions/{id}/approvals',
      '/v1/sessions/{id}/back',
      '/v1/sessions/{id}/cancel',
      '/v1/sessions/{id}/before',
      '/v1/sessions/{id}/events',
      '/v1/sessions/{id}/items',
      '/v1/sessions/{id}/export',
      '/v1/sessions/{id}/fork',
      '/v1/sessions/{id}/preview',
      '/v1/sessions/{id}/front',
      '/v1/sessions/{id}/pause',
      '/v1/sessions/{id}/priority',
      '/v1/sessions/{id}/receipt',
      '/v1/sessions/{id}/resume',
      '/v1/sessions/{id}/results.zip',
      '/v1/sessions/{id}/retry',
      '/v1/sessions/{id}/signal',
      '/v1/sessions/{id}/states',
      '/v1/usage',
      '/v1/webhooks',
      '/v1/webhooks/{id}',
      '/v1/webhooks/{id}/deliveries',
      '/v1/webhooks/{id}/rotate',
      '/v1/webhooks/{id}/send',
      '/v1/workers',
      '/v1/workflows',
      '/v1/workflows/reload',
      '/v1/workflows/{name}',
      '/v1/workflows/{name}/drawing',
    ]
    expect(Object.keys(json.paths).toSorted()).toEqual([...new Set([...reads, ...commands])].toSorted())
  })

  it('every operation has a summary, a tag, problems; all but the probes and the login ask for a key', async () => {
    const { json } = await h.client.get('/openapi.json')
    for (const [path, methods] of Object.entries<Record<string, Operation>>(json.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        const where = `${method} ${path}`
        expect(operation.summary, where).toBeTruthy()
        expect(operation.tags, where).toHaveLength(1)
        for (const status of [401, 403, 421, 422, 500, 503]) {
          expect(operation.responses[status]?.content, where).toEqual({
            'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } },
          })
        }
        const isOpen = ['/v1/approvals/{token}', '/v1/health', '/v1/ready'].includes(path) || where === 'post /v1/login'
        expect(operation.security, where).toEqual(isOpen ? undefined : [{ key: [] }])
      }
    }
  })

  it('every reference in it leads somewhere', async () => {
    const { json, text } = await h.client.get('/openapi.json')
    const references = [...text.matchAll(/"\$ref":"#\/([^"]+)"/g)].map((match) => match[1] ?? '')
    expect(references.length).toBeGreaterThan(20)
    for (const reference of references) {
      const found = reference
        .split('/')
        .reduce<unknown>(
          (at, part) => (at as Record<string, unknown> | undefined)?.[part.replaceAll('~1', '/').replaceAll('~0', '~')],
          json,
        )
      expect(found, reference).toBeDefined()
    }
  })

  it('holds the input schema of every workflow, as GET /v1/workflows does', async () => {
    const { json } = await h.client.get('/openapi.json')
    const { workflows } = (await h.client.get('/v1/workflows')).json
    expect(workflows.map(({ name }: { name: string }) => name)).toEqual([...builtIn.map(({ name }) => name), 'sketch'])
    const refs = json.components.schemas.SubmitSession.properties.input.anyOf.map(({ $ref }: { $ref: string }) => $ref)
    expect(refs).toEqual(
      [...builtIn, { name: 'sketch', version: 1 }].map(({ name, version }) => `#/components/schemas/${name}.${version}.input`),
    )
    expect(json.components.schemas['image-generation.1.input'].properties.width.multipleOf).toBe(8)
    const [generation] = workflows
    const { sampler, schedule } = generation.inputSchema.properties
    expect(sampler.anyOf).toEqual([{ type: 'string', enum: [...samplers] }, { type: 'string' }])
    expect(schedule.anyOf).toEqual([{ type: 'string', enum: [...schedules] }, { type: 'string' }])
    expect(schedule.description).toMatch(/DDIM, LCM, DDPM, PLMS, TCD take Automatic alone/)
    expect(generation.diagram).toMatch(/stateDiagram/)
    expect((await h.client.get('/v1/workflows/image-generation')).json).toEqual(generation)
    expect((await h.client.get('/v1/workflows/image-generation@1')).json).toEqual(generation)
    const { status, json: drawn } = await h.client.get('/v1/workflows/image-generation/drawing')
    expect(status).toBe(200)
    expect(drawn.boxes).toContainEqual(expect.objectContaining({ path: 'drawing.denoising', isOuter: false, steps: ['inference.denoise'] }))
    expect(drawn.edges[0]).toEqual({ path: expect.stringMatching(/^M[\d.]+ /), title: expect.stringMatching(/ → .*: /) })
    expect((await h.client.get('/v1/workflows/none/drawing')).json).toMatchObject({ status: 404, code: 'workflow.unknown' })
  })

  it('the checker of responses notices what is not in it', async () => {
    const { json } = await h.client.get('/openapi.json')
    const validator = new ResponseValidator(json)
    const session = (await h.client.post('/v1/sessions', sketchOf('checked'))).json
    const check =
      (status: number, type: string, body: unknown, method = 'GET', path = `/v1/sessions/${session.id}`) =>
      (): void =>
        validator.check(method, path, status, type, typeof body === 'string' ? body : JSON.stringify(body))
    expect(check(200, 'application/json', session)).not.toThrow()
    expect(check(200, 'application/json', { ...session, extra: 1 })).toThrow(/additional properties/)
    expect(check(200, 'application/json', { ...session, createdAt: 'yesterday' })).toThrow(/date-time/)
    expect(check(200, 'application/json', { ...session, status: 'done' })).toThrow(/allowed values/)
    expect(check(200, 'application/json', { ...session, error: {} })).toThrow(/required/)
    expect(check(200, 'text/html', '')).toThrow(/content type/)
    expect(check(418, 'application/json', {})).toThrow(/status is not in/)
    expect(check(404, 'application/problem+json', { detail: 'x' })).toThrow(/required/)
    expect(check(404, 'text/plain', 'x', 'GET', '/nothing')).toThrow(/problem\+json/)
    expect(check(204, '', 'body', 'DELETE')).toThrow(/no body/)
    expect(() => validator.checkSchema('SessionEvent', { type: 'session.created', at: 1 })).toThrow(/string/)
  })
})

describe('the reference page', () => {
  it('needs nothing from outside and runs nothing inline', async () => {
    const page = await h.client.get('/docs')
    expect(page.status).toBe(200)
    const policy = page.headers['content-security-policy'] ?? ''
    expect(policy).toMatch(/default-src 'none'/)
    expect(policy).toMatch(/script-src 'self';/)
    expect(policy).toMatch(/frame-ancestors 'none'/)
    expect(page.text).not.toMatch(/https?:\/\//)
    expect(page.text).not.toMatch(/<script(?![^>]*src=)/)
    const linked = [...page.text.matchAll(/(?:src|href)="([^"]+)"/g)].map((match) => match[1] ?? '')
    expect(linked).toHaveLength(4)
    for (const path of linked) {
      const answer = await h.client.get(path)
      expect(answer.status, path).toBe(200)
      expect(answer.bytes.length, path).toBeGreaterThan(50)
      expect(answer.headers['x-content-type-options']).toBe('nosniff')
    }
  })

  it('serves the bundle that is installed, whole', async () => {
    const file = createRequire(import.meta.url).resolve('swagger-ui-dist/swagger-ui-bundle.js')
    expect((await h.client.get('/docs/swagger-ui-bundle.js')).bytes.equals(readFileSync(file))).toBe(true)
    expect((await h.client.get('/docs/package.json')).status).toBe(404)
    expect((await h.client.get('/docs/constructor')).status).toBe(404)
  })
})

describe('the board', () => {
  it('shows the lanes and their jobs', async () => {
    await h.client.post('/v1/sessions', sketchOf('on the board'))
    const page = await h.client.get('/admin/queues')
    expect(page.status).toBe(200)
    expect(page.headers['content-security-policy']).toMatch(/default-src 'none'/)
    for (const [, path] of page.text.matchAll(/(?:src|href)="(static[^"]+)"/g))
      expect((await h.client.get(`/admin/queues/${path}`)).status, path).toBe(200)
    const { queues } = (await h.client.get('/admin/queues/api/queues')).json
    expect(queues).toMatchObject([{ name: 'host', readOnlyMode: true }])
    expect((await h.client.get('/admin/queues/queue/host')).status).toBe(200)
  })

  it.each([
    ['PUT', '/admin/queues/api/queues/host/pause'],
    ['PUT', '/admin/queues/api/queues/pause'],
    ['PUT', '/admin/queues/api/queues/host/empty'],
    ['PUT', '/admin/queues/api/queues/host/obliterate'],
    ['POST', '/admin/queues/api/queues/host/add'],
    ['PATCH', '/admin/queues/api/queues/host/1/update-data'],
  ])('is read-only: %s %s', async (method, path) => {
    const body = { name: 'x', data: {}, options: {} }
    const answer = await h.client.request(method, path, { body })
    expect(answer.json).toMatchObject({ status: 403, code: 'api.board_read_only' })
    const [queue] = await h.engine.queues()
    expect(await queue?.isPaused()).toBe(false)
  })

  it('with the switch, operators may write', async () => {
    const api = await h.another({ boardWrite: true })
    const client = new ApiClient(api.url)
    const [queue] = await h.engine.queues()
    expect((await client.request('PUT', '/admin/queues/api/queues/host/pause')).status).toBe(200)
    expect(await queue?.isPaused()).toBe(true)
    expect((await client.request('PUT', '/admin/queues/api/queues/host/resume')).status).toBe(200)
    const { key } = await h.keys.add('no operator', ['read', 'control', 'submit'])
    expect((await new ApiClient(api.url, { key }).request('PUT', '/admin/queues/api/queues/host/pause')).json).toMatchObject({
      code: 'api.forbidden',
    })
    for (const { id } of await h.keys.list()) await h.keys.revoke(id)
    await h.keys.open()
  })

  it('what it refuses itself is a problem, too', async () => {
    expect((await h.client.get('/admin/queues/api/queues/none/jobs')).json).toMatchObject({ status: 404, code: 'api.not_found' })
    expect((await h.client.get('/admin/queues/static/none.js')).json).toMatchObject({ status: 404 })
    expect((await h.client.get('/admin/none')).json).toMatchObject({ status: 404, code: 'api.not_found' })
  })
})
