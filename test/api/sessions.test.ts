import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { eventually, sleep } from '../support/wait.ts'
import { errorCatalogue, DarkroomError } from '../../src/errors.ts'
import { statusOf } from '../../src/api/problem.ts'
import { ApiClient } from '../support/http.ts'
import { picture, png, sketchOf, startHarness, type Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

const submit = async (text: string, more: Record<string, unknown> = {}): Promise<string> =>
  (await h.client.post('/v1/sessions', sketchOf(text, more))).json.id

describe('POST /v1/sessions', () => {
  it('accepts: 202, the session made whole, where to find it', async () => {
    const answer = await h.client.post('/v1/sessions', picture({ seed: undefined, sampler: undefined }))
    expect(answer.status).toBe(202)
    expect(answer.headers['location']).toBe(`/v1/sessions/${answer.json.id}`)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.json).toMatchObject({
      status: 'queued',
      workflow: 'image-generation@1',
      output: null,
      error: null,
      priority: 5,
      tags: [],
      keyId: null,
    })
    expect(answer.json.input).toMatchObject({ model: 'darkroom-tiny', seed: expect.any(Number), sampler: expect.any(String), count: 1 })
    expect((await h.client.get(answer.headers['location'] ?? '')).json).toEqual(answer.json)
  })

  it.each([
    [
      { sampler: 'dpmpp_2m_sde', schedule: 'sgm_uniform' },
      { sampler: 'DPM++ 2M SDE', schedule: 'SGM Uniform' },
    ],
    [{ sampler: 'k_euler_ancestral', schedule: 'automatic' }, { sampler: 'Euler a' }],
    [{ sampler: 'DPM++ 3M SDE Exponential' }, { sampler: 'DPM++ 3M SDE', schedule: 'Exponential' }],
    [{ sampler: 'DPM++ 2M', schedule: 'karras' }, { sampler: 'DPM++ 2M Karras' }],
    [{ sampler: 'DPM++ 2M Karras' }, { sampler: 'DPM++ 2M Karras' }],
  ])('keeps %j as %j', async (input, kept) => {
    const { json } = await h.client.post('/v1/sessions', picture(input))
    const { sampler, schedule } = json.input
    expect({ sampler, ...(schedule !== undefined && { schedule }) }).toEqual(kept)
    await h.client.post(`/v1/sessions/${json.id}/cancel`)
  })

  it('keeps priority, tags and deadline', async () => {
    const { json } = await h.client.post('/v1/sessions', sketchOf('options', { priority: 9, tags: ['a', 'b:c'], deadlineS: 60 }))
    expect(json).toMatchObject({ priority: 9, tags: ['a', 'b:c'] })
    expect(Date.parse(json.deadlineAt) - Date.parse(json.createdAt)).toBe(60_000)
  })

  it('of a paused session says what is left to its deadline, not when that was', async () => {
    const { json } = await h.client.post('/v1/sessions', sketchOf('paused', { deadlineS: 60 }))
    expect(json.deadlineLeftS).toBeNull()
    const paused = (await h.client.post(`/v1/sessions/${json.id}/pause`)).json
    expect(paused).toMatchObject({ status: 'paused', deadlineAt: null })
    expect(paused.deadlineLeftS).toBeGreaterThan(50)
    expect(paused.deadlineLeftS).toBeLessThanOrEqual(60)
    await sleep(300)
    const resumed = (await h.client.post(`/v1/sessions/${json.id}/resume`)).json
    expect(resumed.deadlineLeftS).toBeNull()
    expect(Date.parse(resumed.deadlineAt)).toBeGreaterThanOrEqual(Date.parse(json.deadlineAt) + 300)
    await h.client.post(`/v1/sessions/${json.id}/cancel`)
  })

  it('a field named __proto__ reaches nothing', async () => {
    const body = '{"workflow":"sketch","__proto__":{"tags":["polluted"]},"input":{"text":"proto","__proto__":{"x":1}}}'
    const answer = await h.client.request('POST', '/v1/sessions', { headers: { 'Content-Type': 'application/json' }, body })
    if (answer.status !== 422) expect(answer.json).toMatchObject({ tags: [], input: { text: 'proto' } })
    expect(({} as Record<string, unknown>)['x']).toBeUndefined()
    expect(({} as Record<string, unknown>)['tags']).toBeUndefined()
  })

  it('a repeat with the same Idempotency-Key answers 200 with the same session', async () => {
    const key = { 'Idempotency-Key': 'repeat-1' }
    // Without a seed: the body as it was sent decides, not the one made whole.
    const first = await h.client.post('/v1/sessions', picture({ seed: undefined }), key)
    const again = await h.client.post('/v1/sessions', picture({ seed: undefined }), key)
    expect([first.status, again.status]).toEqual([202, 200])
    expect(again.json).toEqual(first.json)
    const other = await h.client.post('/v1/sessions', picture({ seed: 8 }), key)
    expect(other.json).toMatchObject({ status: 422, code: 'session.idempotency_mismatch', field: 'Idempotency-Key' })
  })

  it('a dry run without a worker says that it runs nowhere, and of what it knows the rest', async () => {
    const answer = await h.client.post('/v1/sessions?dryRun=true', picture())
    expect(answer).toMatchObject({ status: 200, json: { nowhere: 'no worker is running', place: null, devices: [], seconds: null } })
    expect(answer.headers['location']).toBeUndefined()
    expect((await h.client.post('/v1/sessions?dryRun=true', sketchOf('dry'))).json).toMatchObject({
      needs: { lanes: ['host'], models: [] },
    })
    const { json } = await h.client.post('/v1/sessions?dryRun=true', { workflow: 'sketch', input: {} })
    expect(json).toMatchObject({ status: 422, code: 'api.invalid', field: 'input.text' })
  })

  it('what a picture took is remembered without the load of its model', async () => {
    const key = 'a'.repeat(64)
    const input = { model: { id: 'm', bodyHash: key }, width: 64, height: 64, guidance: 7 }
    const output = { exactness: { key: '01234567' } }
    await h.engine.runs.note({ input, output, stats: { seconds: 5, loadS: 4, calls: 2 } })
    expect(await h.engine.runs.of(key)).toEqual([{ exactnessKey: '01234567', width: 64, height: 64, rows: 2, callS: 0.5 }])
  })

  it('thirty at once with one key make one session', async () => {
    const answers = await Promise.all(
      Array.from({ length: 30 }, () => h.client.post('/v1/sessions', sketchOf('race'), { 'Idempotency-Key': 'race' })),
    )
    expect(new Set(answers.map(({ json }) => json.id)).size).toBe(1)
    expect(answers.filter(({ status }) => status === 202)).toHaveLength(1)
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(29)
  })
})

describe('Prefer: wait', () => {
  it('answers 200 with the ended session', async () => {
    const pending = h.client.post('/v1/sessions', sketchOf('waited'), { Prefer: 'respond-async, wait=30', 'Idempotency-Key': 'waited' })
    const id = await found('waited')
    await h.finish(id)
    const answer = await pending
    expect(answer.status).toBe(200)
    expect(answer.headers['preference-applied']).toBe('wait=30')
    expect(answer.json).toMatchObject({
      id,
      status: 'succeeded',
      output: { images: [{ url: expect.stringMatching(/^\/v1\/artifacts\/[0-9a-f]{64}$/) }] },
    })
    const again = await h.client.post('/v1/sessions', sketchOf('waited'), { Prefer: 'wait=30', 'Idempotency-Key': 'waited' })
    expect(again.json).toEqual(answer.json)
  })

  it('answers 202 with the session as it is when the time is over', async () => {
    const startedAt = performance.now()
    const answer = await h.client.post('/v1/sessions', sketchOf('slow'), { Prefer: 'wait=1' })
    expect(answer.status).toBe(202)
    expect(answer.headers['preference-applied']).toBe('wait=1')
    expect(performance.now() - startedAt).toBeGreaterThan(900)
    expect(performance.now() - startedAt).toBeLessThan(3000)
  })

  it.each(['wait', 'wait=', 'wait=-1', 'wait=ten', 'respond-async', 'wait=1.5'])(
    '%s is no preference, so it is ignored',
    async (prefer) => {
      const answer = await h.client.post('/v1/sessions', sketchOf('ignored'), { Prefer: prefer })
      expect(answer.status).toBe(202)
      expect(answer.headers['preference-applied']).toBeUndefined()
    },
  )

  it('waits 60 s at most, and no longer than the process lives', async () => {
    const api = await h.another()
    const client = new ApiClient(api.url)
    await client.get('/v1/health')
    const pending = client.post('/v1/sessions', sketchOf('closing'), { Prefer: 'wait=3600' })
    await found('closing')
    await new Promise((resolve) => setTimeout(resolve, 100))
    const startedAt = performance.now()
    await api.close()
    expect(performance.now() - startedAt).toBeLessThan(2000)
    const answer = await pending
    expect(answer.status).toBe(202)
    expect(answer.headers['preference-applied']).toBe('wait=60')
  })

  /** The session whose input has this text, as soon as there is one. */
  async function found(text: string): Promise<string> {
    for (;;) {
      const { sessions } = (await h.client.get('/v1/sessions?limit=5')).json
      const session = sessions.find(({ input }: { input: { text?: string } }) => input.text === text)
      if (session) return session.id
    }
  }
})

describe('GET /v1/sessions', () => {
  it('pages through all of them, newest first, without gaps or repeats', async () => {
    const ids: string[] = []
    for (let i = 0; i < 7; i++) ids.unshift(await submit(`page ${i}`, { tags: ['page'] }))
    const seen: string[] = []
    let next: string | null = ''
    for (let pages = 0; next !== null; pages++) {
      expect(pages).toBeLessThan(5)
      const { json } = await h.client.get(`/v1/sessions?tag=page&limit=2${next && `&cursor=${next}`}`)
      seen.push(...json.sessions.map(({ id }: { id: string }) => id))
      next = json.next
    }
    expect(seen).toEqual(ids)
  })

  it('filters by status, workflow and tag', async () => {
    const list = async (query: string): Promise<string[]> =>
      (await h.client.get(`/v1/sessions?${query}`)).json.sessions.map(({ id }: { id: string }) => id)
    const sketch = await submit('filter', { tags: ['filter'] })
    const cancelled = await submit('filter', { tags: ['filter'] })
    await h.client.post(`/v1/sessions/${cancelled}/cancel`)
    const image = (await h.client.post('/v1/sessions', { ...picture(), tags: ['filter'] })).json.id
    expect(await list('tag=filter')).toEqual([image, cancelled, sketch])
    expect(await list('tag=filter&status=cancelled')).toEqual([cancelled])
    expect(await list('tag=filter&status=queued&workflow=sketch')).toEqual([sketch])
    expect(await list('tag=filter&workflow=image-generation')).toEqual([image])
    expect(await list('tag=filter&workflow=image-generation@1')).toEqual([image])
    expect(await list('tag=filter&workflow=image-generation@2')).toEqual([])
    expect(await list('tag=nobody')).toEqual([])
  })
})

describe('verbs', () => {
  it('pause, resume, cancel', async () => {
    const id = await submit('verbs')
    expect((await h.client.post(`/v1/sessions/${id}/pause`)).json).toMatchObject({ id, status: 'paused' })
    expect((await h.client.post(`/v1/sessions/${id}/pause`)).status).toBe(200)
    const resumed = await h.client.post(`/v1/sessions/${id}/resume`)
    expect(['queued', 'running']).toContain(resumed.json.status)
    const cancelled = await h.client.post(`/v1/sessions/${id}/cancel`)
    expect(cancelled.json).toMatchObject({ status: 'cancelled', endedAt: expect.any(String) })
    // Cancelling a cancelled one is what was wanted.
    expect((await h.client.post(`/v1/sessions/${id}/cancel`)).status).toBe(200)
    expect((await h.client.post(`/v1/sessions/${id}/resume`)).json).toMatchObject({ status: 409, code: 'session.ended' })
  })

  it('what has succeeded cannot be cancelled, nor retried', async () => {
    const id = await submit('done')
    await h.finish(id)
    expect((await h.client.post(`/v1/sessions/${id}/cancel`)).json).toMatchObject({ status: 409, code: 'session.ended' })
    expect((await h.client.post(`/v1/sessions/${id}/retry`)).json).toMatchObject({ status: 409, code: 'session.not_retryable' })
  })

  it('retry makes a new session', async () => {
    const id = await submit('again')
    expect((await h.client.post(`/v1/sessions/${id}/retry`)).json).toMatchObject({ status: 409, code: 'session.not_retryable' })
    await h.client.post(`/v1/sessions/${id}/cancel`)
    const answer = await h.client.post(`/v1/sessions/${id}/retry`)
    expect(answer.status).toBe(202)
    expect(answer.json).toMatchObject({ retryOf: id, status: 'queued', input: { text: 'again' } })
    expect(answer.headers['location']).toBe(`/v1/sessions/${answer.json.id}`)
    expect((await h.client.get(`/v1/sessions/${id}`)).json.status).toBe('cancelled')
  })

  it('delete removes an ended session and nothing else', async () => {
    const id = await submit('delete')
    expect((await h.client.delete(`/v1/sessions/${id}`)).json).toMatchObject({ status: 409, code: 'session.not_ended' })
    await h.client.post(`/v1/sessions/${id}/cancel`)
    const answer = await h.client.delete(`/v1/sessions/${id}`)
    expect([answer.status, answer.text]).toEqual([204, ''])
    for (const path of ['', '/receipt', '/events'])
      expect((await h.client.get(`/v1/sessions/${id}${path}`)).json).toMatchObject({ status: 404, code: 'session.unknown' })
    expect((await h.client.delete(`/v1/sessions/${id}`)).status).toBe(404)
  })

  it('the receipt says what happened', async () => {
    const id = await submit('receipt')
    await h.finish(id)
    const { json } = await h.client.get(`/v1/sessions/${id}/receipt`)
    expect(json).toMatchObject({
      session: id,
      status: 'succeeded',
      steps: [{ step: 'test.draw', attempts: [{ worker: 'w', end: 'completed' }] }],
    })
  })
})

describe('pictures', () => {
  it('come with their type, their length, and leave to cache them for good', async () => {
    const sha256 = await h.finish(await submit('picture'))
    const answer = await h.client.get(`/v1/artifacts/${sha256}`)
    expect(answer.status).toBe(200)
    expect(answer.bytes.equals(png)).toBe(true)
    expect(answer.headers).toMatchObject({
      'content-type': 'image/png',
      'content-length': String(png.length),
      'cache-control': 'private, max-age=31536000, immutable',
      'x-content-type-options': 'nosniff',
      'content-security-policy': "default-src 'none'; sandbox",
      etag: `"${sha256}"`,
    })
    const known = await h.client.get(`/v1/artifacts/${sha256}`, { headers: { 'If-None-Match': `W/"x", "${sha256}"` } })
    expect([known.status, known.text, known.headers['etag']]).toEqual([304, '', `"${sha256}"`])
    const head = await h.client.request('HEAD', `/v1/artifacts/${sha256}`)
    expect([head.status, head.text, head.headers['content-length']]).toEqual([200, '', String(png.length)])
  })

  it.each([
    ['JPEG', Buffer.from([0xff, 0xd8, 0xff, 0xe0, 0, 0]), 'image/jpeg'],
    ['WebP', Buffer.from('RIFF\0\0\0\0WEBPVP8 ', 'latin1'), 'image/webp'],
    ['AVIF', Buffer.from('\0\0\0\x20ftypavif', 'latin1'), 'image/avif'],
  ])('%s is known by its bytes', async (_, bytes, type) => {
    const sha256 = await h.finish(await submit(type), bytes)
    expect((await h.client.get(`/v1/artifacts/${sha256}`)).headers['content-type']).toBe(type)
  })

  it.each([
    ['HTML', '<html><script>alert(1)</script>'],
    ['SVG', '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'],
    ['a tensor', '\x10\0\0\0\0\0\0\0{"x":1}'],
    ['nothing', ''],
    ['half a signature', '\x89PNG'],
  ])('%s never leaves, though a session names it', async (_, text) => {
    const sha256 = await h.finish(await submit('other bytes'), Buffer.from(text, 'latin1'))
    expect((await h.client.get(`/v1/artifacts/${sha256}`)).json).toMatchObject({ status: 404, code: 'artifact.unknown' })
  })

  it('bytes in the store that no session names do not leave', async () => {
    const sha256 = await h.artifacts.put(Buffer.concat([png, Buffer.from('unnamed')]), 'image')
    expect((await h.client.get(`/v1/artifacts/${sha256}`)).json).toMatchObject({ status: 404, code: 'artifact.unknown' })
  })

  it('a picture that is gone from the store is said to be gone', async () => {
    const bytes = Buffer.concat([png, Buffer.from('gone')])
    const sha256 = await h.finish(await submit('gone'), bytes)
    await h.artifacts.collect(() => Promise.resolve(false), -1000)
    expect((await h.client.get(`/v1/artifacts/${sha256}`)).json).toMatchObject({ status: 410, code: 'artifact.missing' })
  })

  it('go with their session', async () => {
    const id = await submit('short-lived')
    const sha256 = await h.finish(id, Buffer.concat([png, Buffer.from('short-lived')]))
    expect((await h.client.get(`/v1/artifacts/${sha256}`)).status).toBe(200)
    await h.client.delete(`/v1/sessions/${id}`)
    expect((await h.client.get(`/v1/artifacts/${sha256}`)).status).toBe(404)
  })

  it.each([
    '..%2f..%2fetc%2fpasswd',
    '..%2Fstore-id',
    'store-id',
    '%2e%2e',
    'A'.repeat(64),
    '0'.repeat(63),
    '0'.repeat(65),
    `${'0'.repeat(62)}..`,
    `%2f${'0'.repeat(63)}`,
  ])('the path trick %s finds nothing', async (trick) => {
    const answer = await h.client.get(`/v1/artifacts/${trick}`)
    expect(answer.status).toBe(404)
  })

  it('dots in the path stay inside the API', async () => {
    for (const path of [
      '/v1/artifacts/../../etc/passwd',
      '/v1/artifacts/..\\..\\etc',
      '/docs/../../package.json',
      '/docs/..%2fpackage.json',
      '/admin/queues/static/..%2f..%2fpackage.json',
    ]) {
      expect((await h.client.get(path)).status).toBeGreaterThanOrEqual(400)
    }
  })
})

it('every error code has a status of its own kind', () => {
  for (const [code, spec] of errorCatalogue) {
    const status = statusOf(new DarkroomError(code, 'x'))
    expect(status, code).toBeGreaterThanOrEqual(400)
    // What may be sent again as it was (RFC 9110, 15.5.9 and 15.6.4; RFC 6585, 4).
    if (spec.class === 'transient') expect(code.startsWith('limit.') ? [429] : [408, 503], code).toContain(status)
    if (code.endsWith('.unknown')) expect([404, 422], code).toContain(status)
  }
})

describe('PATCH /v1/sessions/{id}', () => {
  const listed = async (tag: string): Promise<string[]> =>
    ((await h.client.get(`/v1/sessions?tag=${tag}`)).json.sessions as { id: string }[]).map(({ id }) => id)

  it('changes tags, of an ended session too: lists follow, and nothing is left of them when it is deleted', async () => {
    const { id } = (await h.client.post('/v1/sessions', sketchOf('x', { tags: ['first', 'kept'] }))).json
    expect((await h.client.request('PATCH', `/v1/sessions/${id}`, { body: { tags: ['kept', 'second'] } })).json.tags).toEqual([
      'kept',
      'second',
    ])
    expect([await listed('first'), await listed('kept'), await listed('second')]).toEqual([[], [id], [id]])
    const events = (await h.engine.history(id, 0, 10)).map(({ event }) => event)
    expect(events.at(-1)).toMatchObject({ type: 'session.changed', tags: ['kept', 'second'] })
    await h.client.post(`/v1/sessions/${id}/cancel`)
    expect((await h.client.request('PATCH', `/v1/sessions/${id}`, { body: { tags: ['third'] } })).json).toMatchObject({
      status: 'cancelled',
      tags: ['third'],
    })
    expect((await h.engine.history(id, 0, 10)).at(-1)?.event.type).toBe('session.cancelled')
    // As by somebody who has read it before the change.
    await h.engine.store.remove(id, ['workflow:sketch', 'tag:second'], false)
    expect(await h.redis.keys('*index:tag:third')).toEqual([])
  })

  it('extends, shortens and takes away the deadline of an open session, a paused one’s too', async () => {
    const { id } = (await h.client.post('/v1/sessions', sketchOf('x', { deadlineS: 2 }))).json
    const patch = async (deadlineS: number | null) => (await h.client.request('PATCH', `/v1/sessions/${id}`, { body: { deadlineS } })).json
    const { deadlineAt, createdAt } = await patch(1000)
    expect(Date.parse(deadlineAt) - Date.parse(createdAt)).toBeGreaterThanOrEqual(1000_000)
    await sleep(2300)
    expect((await h.client.get(`/v1/sessions/${id}`)).json.status).toBe('queued')
    await h.client.post(`/v1/sessions/${id}/pause`)
    expect(await patch(50)).toMatchObject({ status: 'paused', deadlineAt: null, deadlineLeftS: 50 })
    await h.client.post(`/v1/sessions/${id}/resume`)
    expect(await patch(null)).toMatchObject({ deadlineAt: null, deadlineLeftS: null })
    await patch(0.1)
    await eventually('its end', async () => (await h.client.get(`/v1/sessions/${id}`)).json.error?.code === 'session.deadline_exceeded')
    expect(await patch(60)).toMatchObject({ status: 409, code: 'session.ended', field: 'deadlineS' })
  })

  it('a deadline that a sweep has just found to be over, and that was put off meanwhile, ends nothing', async () => {
    const { id } = (await h.client.post('/v1/sessions', sketchOf('x', { deadlineS: 100 }))).json
    const error = { code: 'session.deadline_exceeded', class: 'permanent', message: 'x', remedy: 'x' } as const
    expect(await h.engine.store.end(id, error, 'deadline')).toBe(false)
    expect((await h.client.get(`/v1/sessions/${id}`)).json.status).toBe('queued')
    await h.client.post(`/v1/sessions/${id}/cancel`)
  })

  it.each([
    [{}, 'body'],
    [{ tags: 'x' }, 'tags'],
    [{ tags: ['no blanks'] }, 'tags.0'],
    [{ deadlineS: -1 }, 'deadlineS'],
    [{ priority: 3 }, 'priority'],
  ])('refuses %j', async (body, field) => {
    const { id } = (await h.client.post('/v1/sessions', sketchOf('x'))).json
    const { status, json } = await h.client.request('PATCH', `/v1/sessions/${id}`, { body })
    expect([status, json.field]).toEqual([422, field])
    await h.client.post(`/v1/sessions/${id}/cancel`)
  })
})
