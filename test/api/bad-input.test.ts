/**
 * SPEC of bad input: every refusal names code, field, what was wrong and what to do; nothing half-done stays behind.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { picture, sketchOf, startHarness, type Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(async () => {
  expect((await h.client.get('/v1/sessions')).json.sessions).toEqual([])
  expect(await h.redis.keys('*session:*')).toEqual([])
  await h.stop()
})

const json = { 'Content-Type': 'application/json' }

describe('bodies', () => {
  it.each(['{', '', 'nonsense', '{"workflow":', "{'workflow':1}", '{"a":1}}', '\u0000', '[1,', 'NaN', '\ufeff{}x', '['.repeat(100_000)])(
    'malformed JSON %#',
    async (body) => {
      const answer = await h.client.request('POST', '/v1/sessions', { headers: json, body })
      expect(answer.status).toBe(400)
      expect(answer.json).toMatchObject({ code: 'api.malformed', class: 'permanent', remedy: expect.stringMatching(/well-formed/) })
    },
  )

  it.each(['null', '[]', '1', '"text"', 'true'])('JSON that is no object: %s', async (body) => {
    const answer = await h.client.request('POST', '/v1/sessions', { headers: json, body })
    expect(answer.json).toMatchObject({ status: 422, code: 'api.invalid', field: 'body' })
  })

  it('an unknown field beside and inside the input', async () => {
    const beside = await h.client.post('/v1/sessions', { ...picture(), callback: 'https://x.example' })
    expect(beside.json).toMatchObject({ status: 422, code: 'api.invalid', field: 'callback', problems: [{ field: 'callback' }] })
    const inside = await h.client.post('/v1/sessions', picture({ stepz: 3, cfg: 1 }))
    expect(inside.json).toMatchObject({ status: 422, code: 'api.invalid', problems: [{ field: 'input.stepz' }, { field: 'input.cfg' }] })
  })

  it('a body over the limit, with its length told or not', async () => {
    const body = JSON.stringify(picture({ prompt: 'x'.repeat(1024 * 1024) }))
    const told = await h.client.request('POST', '/v1/sessions', { headers: json, body })
    expect(told.json).toMatchObject({ status: 413, code: 'api.too_large', field: 'body' })
    const untold = await h.client.request('POST', '/v1/sessions', { headers: { ...json, 'Transfer-Encoding': 'chunked' }, body })
    expect(untold.json).toMatchObject({ status: 413, code: 'api.too_large' })
  })

  it('a prompt of nearly a megabyte', async () => {
    const answer = await h.client.post('/v1/sessions', picture({ prompt: 'x'.repeat(1_000_000) }))
    expect(answer.json).toMatchObject({ status: 422, code: 'api.invalid', field: 'input.prompt' })
    expect(answer.text.length).toBeLessThan(2000)
  })

  it('fields in the body of a verb that takes none', async () => {
    const path = '/v1/sessions/0-00000000000000000000000000'
    const answer = await h.client.post(`${path}/cancel`, { force: true })
    expect(answer.json).toMatchObject({ status: 422, field: 'force' })
    expect((await h.client.request('POST', `${path}/pause`, { headers: json, body: '{' })).json).toMatchObject({
      status: 400,
      code: 'api.malformed',
    })
    expect((await h.client.request('POST', `${path}/retry`, { headers: json, body: '[]' })).json).toMatchObject({
      status: 422,
      field: 'body',
    })
    expect((await h.client.post(`${path}/resume`, {})).status).toBe(404)
  })
})

describe('the input of image-generation', () => {
  it.each([
    [{ prompt: 'a\u0000b' }, 'input.prompt', /control characters/],
    [{ prompt: 'half a pair \ud83d' }, 'input.prompt', /half of a surrogate pair/],
    [{ negativePrompt: '\u001b[31m' }, 'input.negativePrompt', /control characters/],
    [{ width: 63 }, 'input.width', /8/],
    [{ width: 100 }, 'input.width', /multiple of 8/],
    [{ height: 65 }, 'input.height', /multiple of 8/],
    [{ width: 8 }, 'input.width', /at least/],
    [{ width: 8192 }, 'input.width', /at most/],
    [{ width: 4096, height: 4096 }, 'input.width', /pixels/],
    [{ width: '64' }, 'input.width', /number/],
    [{ width: 64.5 }, 'input.width', /int/],
    [{ steps: 0 }, 'input.steps', /./],
    [{ steps: 100_000 }, 'input.steps', /./],
    [{ guidance: -1 }, 'input.guidance', /./],
    [{ seed: -1 }, 'input.seed', /./],
    [{ seed: 2 ** 53 }, 'input.seed', /2\^53 - 1|integer/],
    [{ seed: 2 ** 53 - 2, count: 3 }, 'input.seed', /last image .* 9007199254740991/],
    [{ seed: 1.5 }, 'input.seed', /int/],
    [{ seed: '7' }, 'input.seed', /number/],
    [{ count: 0 }, 'input.count', /./],
    [{ count: 1e9 }, 'input.count', /./],
    [{ sampler: 'Eular' }, 'input.sampler', /there is no sampler "Eular"; the nearest is Euler; GET .v1.workflows.image-generation/],
    [{ sampler: 'DPM fast' }, 'input.sampler', /there is no sampler "DPM fast"; the nearest is/],
    [{ sampler: 7 }, 'input.sampler', /./],
    [{ schedule: 'kl_optimal' }, 'input.schedule', /there is no schedule "kl_optimal"; the nearest is .*; offered are Automatic, Karras, /],
    [{ sampler: 'DDIM', schedule: 'karras' }, 'input.schedule', /^DDIM counts .* no schedule but Automatic; .* takes Karras is Euler$/],
    [{ schedule: 'Karras' }, 'input.schedule', /^DDIM counts .* is Euler, and the own sampler of model darkroom-tiny is DDIM: say one$/],
    [{ sampler: 'DPM++ 2M SDE Karras', schedule: 'Beta' }, 'input.schedule', /name of the sampler says Karras, .* cannot be Beta/],
    [{ pin: 'loose' }, 'input.pin', /strict/],
    [{ promptSyntax: 'compel' }, 'input.promptSyntax', /a1111/],
    [{ prompt: 'a (16:900) picture' }, 'input.prompt', /weight 900; it must be from -10 to 10/],
    [{ clipSkip: 0 }, 'input.clipSkip', /at least 1/],
    [{ clipSkip: 13 }, 'input.clipSkip', /at most 12/],
    [{ clipSkip: 1.5 }, 'input.clipSkip', /int/],
    [{ variation: 0.2 }, 'input.variation', /object/],
    [{ variation: {} }, 'input.variation.strength', /./],
    [{ variation: { strength: 1.1 } }, 'input.variation.strength', /./],
    [{ variation: { strength: 0.1, seed: -1 } }, 'input.variation.seed', /./],
    [{ guidanceRescale: 2 }, 'input.guidanceRescale', /./],
    [{ guidanceRescale: 0.5, guidance: 1 }, 'input.guidanceRescale', /guidance 1 is none/],
    [{ guidanceInterval: { start: -0.1 } }, 'input.guidanceInterval.start', /./],
    [{ guidanceInterval: { start: 0.5, end: 0.4 } }, 'input.guidanceInterval.end', /more than start, 0\.5/],
    [{ prompt: undefined }, 'input.prompt', /./],
    [{ prompt: 7 }, 'input.prompt', /string/],
    [{ prompt: ['x'] }, 'input.prompt', /string/],
  ])('%j', async (input, field, message) => {
    const answer = await h.client.post('/v1/sessions', picture(input))
    expect(answer.json).toMatchObject({ status: 422, code: 'api.invalid', field, remedy: expect.any(String) })
    expect(answer.json.problems).toContainEqual({ field, message: expect.stringMatching(message) })
  })

  it('every field at fault is named at once', async () => {
    const answer = await h.client.post('/v1/sessions', picture({ width: 65, steps: 0, sampler: 'x' }))
    expect(answer.json.problems.map(({ field }: { field: string }) => field).toSorted()).toEqual([
      'input.sampler',
      'input.steps',
      'input.width',
    ])
  })

  it.each(['no-such-model', '../darkroom-tiny', '/etc/passwd', 'darkroom-tiny/unet', '..', 'DARKROOM-TINY'])(
    'an unknown model %j',
    async (model) => {
      const answer = await h.client.post('/v1/sessions', picture({ model }))
      expect(answer.json).toMatchObject({ status: 422, code: 'model.unknown', field: 'input.model' })
    },
  )
})

describe('the submission', () => {
  it.each([
    [{ workflow: 'no-such' }, 'workflow', 'workflow.unknown'],
    [{ workflow: 'image-generation@99' }, 'workflow', 'workflow.unknown'],
    [{ workflow: '' }, 'workflow', 'api.invalid'],
    [{ workflow: undefined }, 'workflow', 'api.invalid'],
    [{ workflow: 7 }, 'workflow', 'api.invalid'],
    [{ input: undefined }, 'input', 'api.invalid'],
    [{ input: [] }, 'input', 'api.invalid'],
    [{ priority: 10 }, 'priority', 'api.invalid'],
    [{ priority: 1.5 }, 'priority', 'api.invalid'],
    [{ tags: ['has space'] }, 'tags.0', 'api.invalid'],
    [{ tags: ['x'.repeat(65)] }, 'tags.0', 'api.invalid'],
    [{ tags: Array.from({ length: 17 }, String) }, 'tags', 'api.invalid'],
    [{ tags: 'one' }, 'tags', 'api.invalid'],
    [{ deadlineS: 0 }, 'deadlineS', 'api.invalid'],
    [{ deadlineS: 1e12 }, 'deadlineS', 'api.invalid'],
  ])('%j', async (more, field, code) => {
    const answer = await h.client.post('/v1/sessions', { ...picture(), ...more })
    expect(answer.json).toMatchObject({ status: 422, code, field })
  })

  it.each(['', 'has space', 'x'.repeat(256), '"open', '"one", "two"', `"${'x'.repeat(256)}"`])('the Idempotency-Key %j', async (key) => {
    const answer = await h.client.post('/v1/sessions', sketchOf('key'), { 'Idempotency-Key': key })
    expect(answer.json).toMatchObject({ status: 422, code: 'api.invalid', field: 'idempotency-key' })
  })

  it('a query parameter that there is not: what was meant by it must not be done without it', async () => {
    const answer = await h.client.post('/v1/sessions?justLooking=true', picture())
    expect(answer.json).toMatchObject({ status: 422, code: 'api.invalid', field: 'justLooking' })
  })
})

describe('queries and paths', () => {
  it.each([
    ['limit=0', 'limit'],
    ['limit=201', 'limit'],
    ['limit=-1', 'limit'],
    ['limit=1.5', 'limit'],
    ['limit=ten', 'limit'],
    ['limit=', 'limit'],
    ['limit=1&limit=2', 'limit'],
    ['status=done', 'status'],
    ['order=asc', 'order'],
    ['cursor=', 'cursor'],
    ['cursor=nonsense', 'cursor'],
    ['cursor=%00', 'cursor'],
    [`cursor=${Buffer.from('abc:def').toString('base64url')}`, 'cursor'],
    [`cursor=${Buffer.from('12').toString('base64url')}`, 'cursor'],
    [`cursor=${'x'.repeat(2000)}`, 'cursor'],
    ['tag=', 'tag'],
  ])('GET /v1/sessions?%s', async (query, field) => {
    const answer = await h.client.get(`/v1/sessions?${query}`)
    expect(answer.json).toMatchObject({ status: 422, code: 'api.invalid', field })
  })

  it.each([
    'x',
    '0',
    '..',
    '0-',
    '0-zzzz',
    `0-${'0'.repeat(25)}u`,
    '99-00000000000000000000000000',
    '%2e%2e',
    '{s0}',
    'a'.repeat(5000),
    '%F0%9F%8E%A8',
  ])('a session id %s', async (id) => {
    for (const path of [`/v1/sessions/${id}`, `/v1/sessions/${id}/receipt`, `/v1/sessions/${id}/events`]) {
      const answer = await h.client.get(path)
      expect(answer.status).toBe(404)
      expect(answer.text.length).toBeLessThan(1000)
    }
  })

  it.each([
    ['after=-1', {}],
    ['after=x', {}],
    ['after=1e3', {}],
    ['', { 'Last-Event-ID': 'x' }],
    ['', { 'Last-Event-ID': '1:2' }],
    ['since=1', {}],
  ])('events?%s %j', async (query, headers) => {
    const answer = await h.client.get(`/v1/sessions/0-00000000000000000000000000/events?${query}`, { headers })
    expect(answer.json).toMatchObject({ status: 422, code: 'api.invalid' })
  })

  it('a path and a method that there are not', async () => {
    expect((await h.client.get('/v1/nothing')).json).toMatchObject({ status: 404, code: 'api.not_found' })
    expect((await h.client.post('/v1/sessions/x/explode')).json).toMatchObject({ status: 404, code: 'api.not_found' })
    expect((await h.client.get('/v1/workflows/none')).json).toMatchObject({ status: 404, code: 'workflow.unknown' })
    const wrong = await h.client.request('PUT', '/v1/sessions')
    expect(wrong.json).toMatchObject({ status: 405, code: 'api.method_not_allowed' })
    expect(wrong.headers['allow']?.split(', ').toSorted()).toEqual(['GET', 'POST'])
    expect((await h.client.get('/v1/sessions/x/cancel')).json).toMatchObject({ status: 405 })
    expect((await h.client.delete('/v1/health')).headers['allow']).toBe('GET')
  })
})
