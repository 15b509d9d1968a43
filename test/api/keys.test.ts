import { createHash } from 'node:crypto'
import { connect } from 'node:net'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { scopes } from '../../src/api-keys.ts'
import { startApi } from '../../src/api/server.ts'
import { keys as redisKeys } from '../../src/keys.ts'
import { createLog } from '../../src/log.ts'
import { ApiClient } from '../support/http.ts'
import { png, sketchOf, startHarness, type Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())
beforeEach(async () => {
  for (const { id } of await h.keys.list()) await h.keys.revoke(id)
  await h.keys.open()
})

describe('the key store', () => {
  it('shows a key once and stores its hash only', async () => {
    const { key, record } = await h.keys.add('laptop', ['read', 'submit'])
    expect(key).toMatch(/^dk_[0-9a-f]{8}_[\w-]{43}$/)
    expect(record).toMatchObject({ name: 'laptop', scopes: ['submit', 'read'] })
    const stored = JSON.stringify(await h.redis.hgetall(redisKeys.apiKeys()))
    expect(stored).not.toContain(key.split('_')[2])
    expect(stored).toContain(createHash('sha256').update(key).digest('hex'))
    expect(JSON.stringify(await h.keys.list())).not.toMatch(/sha256|dk_/)
  })

  it('finds a key by all of it and by nothing less', async () => {
    const { key, record } = await h.keys.add('laptop', ['read'])
    expect(await h.keys.find(key)).toEqual(record)
    const last = key.endsWith('A') ? 'B' : 'A'
    for (const wrong of [
      key.slice(0, -1) + last,
      key.slice(0, -1),
      `${key}A`,
      key.toUpperCase(),
      '',
      'dk_',
      `dk_${record.id}_`,
      record.id,
    ]) {
      expect(await h.keys.find(wrong)).toBeUndefined()
    }
  })

  it('lists the oldest first and forgets revoked ones', async () => {
    const { record: first } = await h.keys.add('first', ['read'])
    while (Date.now() === first.createdAt) await new Promise(setImmediate)
    const { record: second } = await h.keys.add('second', ['operate'])
    expect((await h.keys.list()).map(({ id }) => id)).toEqual([first.id, second.id])
    expect(await h.keys.revoke(first.id)).toBe(true)
    expect(await h.keys.revoke(first.id)).toBe(false)
    expect(await h.keys.list()).toEqual([second])
  })

  it.each([
    ['', ['read'], 'name'],
    ['x'.repeat(65), ['read'], 'name'],
    ['new\nline', ['read'], 'name'],
    ['fine', [], 'scopes'],
  ] as const)('refuses the name %j with scopes %j', async (name, granted, field) => {
    await expect(h.keys.add(name, granted)).rejects.toMatchObject({ code: 'api.invalid', details: { problems: [{ field }] } })
  })

  it('knows the weight of each key, and refuses one that is none', async () => {
    const { record } = await h.keys.add('heavy', ['read'], 3)
    const { record: usual } = await h.keys.add('usual', ['read'])
    expect(await h.keys.weights()).toEqual(
      new Map([
        [record.id, 3],
        [usual.id, 1],
      ]),
    )
    for (const weight of [0, -1, 101, Number.NaN])
      await expect(h.keys.add('odd', ['read'], weight)).rejects.toMatchObject({ details: { problems: [{ field: 'weight' }] } })
  })
})

describe('without a stored key', () => {
  it('this machine needs none', async () => {
    expect((await h.client.get('/v1/sessions')).status).toBe(200)
  })

  it('one that a program of this machine presents is ignored, through a proxy it must be valid', async () => {
    const client = new ApiClient(h.url, { key: 'anything' })
    expect((await client.get('/v1/sessions')).status).toBe(200)
    for (const trace of [{ 'X-Forwarded-For': '203.0.113.7' }, { Via: '1.1 proxy' }, { 'X-Real-IP': '203.0.113.7' }])
      expect((await client.get('/v1/sessions', { headers: trace })).json).toMatchObject({ status: 401, code: 'api.unauthorized' })
  })

  it.each(['Bearer sk-anything', 'Bearer ', 'bearer', 'Basic Og==', 'Basic ', 'Negotiate x', ''])(
    'whatever Authorization a local client sends says nothing: %j',
    async (authorization) => {
      const headers = { Authorization: authorization }
      expect((await h.client.get('/v1/sessions', { headers })).status).toBe(200)
      expect((await h.client.get('/admin/queues', { headers })).status).toBe(200)
      // It is no way round the guard.
      const foreign = { ...headers, Origin: 'https://evil.example' }
      expect((await h.client.get('/v1/sessions', { headers: foreign })).json).toMatchObject({ status: 403, code: 'api.origin_refused' })
    },
  )

  const address = Object.values(networkInterfaces())
    .flat()
    .find((each) => each?.family === 'IPv4' && !each.internal)?.address

  it.skipIf(address === undefined)('other machines need one', async () => {
    const { port } = await h.another({ host: '0.0.0.0', allowedHosts: [address ?? ''] })
    const answer = await new ApiClient(`http://${address}:${port}`).get('/v1/sessions')
    expect(answer.json).toMatchObject({ status: 401, code: 'api.unauthorized', detail: expect.stringMatching('other machines') })
    expect((await new ApiClient(`http://127.0.0.1:${port}`).get('/v1/sessions')).status).toBe(200)
  })

  it('binding beyond this machine is refused', async () => {
    const start = startApi({ ...h.config, host: '0.0.0.0' }, createLog('silent', 'api'))
    await expect(start).rejects.toMatchObject({ code: 'api.key_required', remedy: expect.stringMatching('darkroom keys add') })
  })
})

it('an API with another artifact folder than the farm refuses to start', async () => {
  const first = await startApi(h.config, createLog('silent', 'api'))
  await first.close()
  const elsewhere = startApi({ ...h.config, data: join(h.config.data, 'elsewhere') }, createLog('silent', 'api'))
  await expect(elsewhere).rejects.toMatchObject({ code: 'artifact.not_shared' })
})

describe('with a stored key', () => {
  it.each([
    '/v1/sessions',
    '/v1/sessions/x',
    '/v1/sessions/x/events',
    '/v1/workflows',
    '/v1/workers',
    '/v1/artifacts/x',
    '/v1/nothing',
    '/admin/queues',
    '/admin/nothing',
  ])('%s asks for one', async (path) => {
    const { key } = await h.keys.add('laptop', [...scopes])
    for (const headers of [
      {},
      { Authorization: 'Bearer ' },
      { Authorization: `Bearer ${key}x` },
      { Authorization: 'Basic eDp5' },
      { Authorization: 'Negotiate x' },
    ]) {
      const answer = await h.client.get(path, { headers })
      expect(answer.json).toMatchObject({ status: 401, code: 'api.unauthorized' })
      expect(answer.headers['www-authenticate']).toMatch(path.startsWith('/admin') ? /^Basic / : /^Bearer /)
      expect(answer.text).not.toContain(key)
    }
  })

  it('health, readiness and the document ask for none', async () => {
    await h.keys.add('laptop', ['read'])
    for (const path of ['/v1/health', '/openapi.json', '/docs']) expect((await h.client.get(path)).status).toBe(200)
    expect((await h.client.get('/v1/ready')).json.reasons).toEqual(['no worker is running'])
  })

  it('opens as Bearer, and as the password of Basic', async () => {
    const { key } = await h.keys.add('laptop', [...scopes])
    for (const authorization of [`Bearer ${key}`, `bearer  ${key}`, `Basic ${Buffer.from(`anyone:${key}`).toString('base64')}`]) {
      expect((await h.client.get('/v1/sessions', { headers: { Authorization: authorization } })).status).toBe(200)
      expect((await h.client.get('/admin/queues', { headers: { Authorization: authorization } })).status).toBe(200)
    }
    expect((await h.client.get(`/v1/sessions?key=${key}`)).status).toBe(401)
  })

  it('passes a proxy', async () => {
    const { key } = await h.keys.add('laptop', ['read'])
    const client = new ApiClient(h.url, { key })
    expect((await client.get('/v1/sessions', { headers: { 'X-Forwarded-For': '203.0.113.7' } })).status).toBe(200)
  })

  it('a key with scope operate sees and controls what is nobody’s any more: of revoked keys, and from before the first', async () => {
    const gone = await h.withKey(...scopes)
    const ids = [(await gone.post('/v1/sessions', sketchOf('of a revoked key'))).json.id] as string[]
    const drawn = (await gone.post('/v1/sessions', sketchOf('its picture'))).json.id as string
    const sha256 = await h.finish(drawn, Buffer.from(`${png.toString('latin1')}of a revoked key`, 'latin1'))
    await h.keys.revoke(gone.keyId)
    await h.keys.open()
    ids.push((await h.client.post('/v1/sessions', sketchOf('from before the first key'))).json.id)

    const other = await h.withKey('submit', 'read', 'control')
    const operator = await h.withKey('read', 'control', 'operate')
    const listed = async (client: ApiClient): Promise<string[]> =>
      (await client.get('/v1/sessions?limit=200')).json.sessions.map((session: { id: string }) => session.id)
    expect(await listed(other)).toEqual([])
    expect(await listed(operator)).toEqual(expect.arrayContaining([...ids, drawn]))
    expect((await operator.get(`/v1/artifacts/${sha256}`)).status).toBe(200)
    expect((await other.get(`/v1/artifacts/${sha256}`)).status).toBe(404)
    for (const id of ids) {
      expect((await other.post(`/v1/sessions/${id}/cancel`)).status).toBe(404)
      expect((await operator.post(`/v1/sessions/${id}/pause`)).json.status).toBe('paused')
      expect((await operator.get(`/v1/sessions/${id}`)).json.status).toBe('paused')
      expect((await operator.post(`/v1/sessions/${id}/cancel`)).json.status).toBe('cancelled')
      expect((await operator.delete(`/v1/sessions/${id}`)).status).toBe(204)
    }
    // Its other scopes are still what it may do.
    const reader = await h.withKey('read', 'operate')
    expect((await reader.post(`/v1/sessions/${drawn}/cancel`)).json).toMatchObject({ status: 403, code: 'api.forbidden' })
  })

  it('of a revoked one streams and waits end within two seconds, on every API; those of others go on', async () => {
    const [gone, other] = [await h.withKey(...scopes), await h.withKey(...scopes)]
    const { url } = await h.another()
    const open = [gone, new ApiClient(url, { key: gone.key })].map((client) => ({ client, text: client.url }))
    const { id } = (await gone.post('/v1/sessions', sketchOf('followed'))).json
    const { id: his } = (await other.post('/v1/sessions', sketchOf('his'))).json
    const ended: string[] = []
    const drain = async (client: ApiClient, path: string, name: string): Promise<void> => {
      for await (const event of client.events(path, { headers: { Accept: 'text/event-stream' } })) void event
      ended.push(name)
    }
    const streams = open.flatMap(({ client }, i) => [
      drain(client, `/v1/sessions/${id}/events`, `session ${i}`),
      drain(client, '/v1/devices/events', `devices ${i}`),
    ])
    void drain(other, `/v1/sessions/${his}/events`, 'his').catch(() => undefined)
    const waits = open.map(({ client, text }) => client.post('/v1/sessions', sketchOf(text), { Prefer: 'wait=30' }))
    await expect.poll(() => h.redis.zcard(redisKeys.slots('streams', gone.keyId))).toBe(4)
    await expect.poll(() => h.redis.zcard(redisKeys.slots('waits', gone.keyId))).toBe(2)
    await expect.poll(() => h.redis.zcard(redisKeys.slots('streams', other.keyId))).toBe(1)

    const revokedAt = performance.now()
    await h.keys.revoke(gone.keyId)
    const answers = await Promise.all(waits)
    await Promise.all(streams)
    expect(performance.now() - revokedAt).toBeLessThan(2000)
    for (const { json } of answers)
      expect(json).toMatchObject({ status: 401, code: 'api.unauthorized', detail: expect.stringMatching(/revoked .* session \S+ goes on/) })
    expect(ended).toHaveLength(4)
    expect(await h.redis.zcard(redisKeys.slots('streams', other.keyId))).toBe(1)
    await h.finish(his)
    await expect.poll(() => ended).toContain('his')
  })

  it('a listener that does not read is cut off with its key', async () => {
    const gone = await h.withKey(...scopes)
    const { id } = (await gone.post('/v1/sessions', sketchOf('not read'))).json
    const socket = connect(Number(new URL(h.url).port), '127.0.0.1')
    socket.write(`GET /v1/sessions/${id}/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${gone.key}\r\n\r\n`)
    await expect.poll(() => h.redis.zcard(redisKeys.slots('streams', gone.keyId))).toBe(1)
    socket.pause()
    const revokedAt = performance.now()
    await h.keys.revoke(gone.keyId)
    await expect.poll(() => h.redis.zcard(redisKeys.slots('streams', gone.keyId)), { timeout: 3000 }).toBe(0)
    expect(performance.now() - revokedAt).toBeLessThan(2500)
    socket.destroy()
  })

  it('what was followed without a key ends with the first key', async () => {
    const { id } = (await h.client.post('/v1/sessions', sketchOf('without a key'))).json
    const followed = (async () => {
      for await (const event of h.client.events(`/v1/sessions/${id}/events`)) void event
    })()
    await expect.poll(() => h.redis.zcard(redisKeys.slots('streams', 'local'))).toBe(1)
    await h.withKey('read')
    await followed
    expect((await h.client.get(`/v1/sessions/${id}`)).status).toBe(401)
  })

  it('a revoked one is worth nothing from the next request on', async () => {
    const client = await h.withKey('read')
    await h.withKey('read')
    expect((await client.get('/v1/sessions')).status).toBe(200)
    await h.keys.revoke(client.keyId)
    expect((await client.get('/v1/sessions')).status).toBe(401)
  })

  it('the last one closes the farm when it goes; an operator opens it', async () => {
    const { url } = await h.another()
    const last = await h.withKey(...scopes)
    await h.keys.revoke(last.keyId)
    for (const client of [h.client, new ApiClient(url), last])
      expect((await client.get('/v1/sessions')).json).toMatchObject({ status: 401, code: 'api.unauthorized' })
    const { json } = await h.client.get('/v1/sessions')
    expect(json.detail).toMatch(/all there were are revoked/)
    expect(json.remedy).toMatch(/keys add.*keys open/)
    // It stays so over a restart, and for a key that is not there.
    expect(await h.keys.revoke('01234567')).toBe(false)
    const api = await startApi(h.config, createLog('silent', 'api'))
    expect((await new ApiClient(api.url).get('/v1/sessions')).status).toBe(401)
    await api.close()

    const next = await h.withKey('read')
    await expect(h.keys.open()).rejects.toMatchObject({ code: 'key.left', message: expect.stringContaining(next.keyId) })
    await h.keys.revoke(next.keyId)
    await h.keys.open()
    expect((await h.client.get('/v1/sessions')).status).toBe(200)
    // A key that is not there closes nothing.
    expect(await h.keys.revoke('01234567')).toBe(false)
    expect((await h.client.get('/v1/sessions')).status).toBe(200)
  })

  it('keys of a farm from before it could be closed close it too', async () => {
    const old = await h.withKey(...scopes)
    await h.redis.del(redisKeys.closed())
    expect((await h.client.get('/v1/sessions')).status).toBe(401)
    await h.keys.revoke(old.keyId)
    expect((await h.client.get('/v1/sessions')).status).toBe(401)
  })

  it('the API may listen beyond this machine', async () => {
    const { key } = await h.keys.add('laptop', ['read'])
    const api = await startApi({ ...h.config, host: '0.0.0.0' }, createLog('silent', 'api'))
    try {
      const url = `http://127.0.0.1:${api.port}`
      expect((await new ApiClient(url, { key }).get('/v1/sessions')).status).toBe(200)
      expect((await new ApiClient(url).get('/v1/sessions')).status).toBe(401)
    } finally {
      await api.close()
    }
  })
})

describe('keys over HTTP', () => {
  it('an operator makes, lists and revokes them; the audit log says who', async () => {
    const operator = await h.withKey('operate', 'read')
    const made = await operator.post('/v1/keys', { name: 'studio', scopes: ['read'], weight: 3 })
    expect(made).toMatchObject({ status: 201, json: { name: 'studio', scopes: ['read'], weight: 3, isOwn: false } })
    const { id, key } = made.json as { id: string; key: string }
    expect((await new ApiClient(h.url, { key }).get('/v1/sessions')).status).toBe(200)
    const listed = await operator.get('/v1/keys')
    expect((listed.json.keys as { id: string; isOwn: boolean }[]).map((each) => [each.id, each.isOwn])).toEqual([
      [operator.keyId, true],
      [id, false],
    ])
    expect(listed.text).not.toMatch(/dk_|sha256/)
    expect((await operator.request('DELETE', `/v1/keys/${id}`)).status).toBe(204)
    expect((await operator.request('DELETE', `/v1/keys/${id}`)).json).toMatchObject({ status: 404, code: 'key.unknown' })
    expect((await new ApiClient(h.url, { key }).get('/v1/sessions')).status).toBe(401)
    const { entries } = (await operator.get('/v1/audit?limit=2')).json
    expect(entries).toMatchObject([
      { keyId: operator.keyId, action: `revoke key ${id}`, requestId: expect.any(String) as string },
      { keyId: operator.keyId, action: `add key ${id} (read)` },
    ])
  })

  it('nobody makes one that may more than their own, and without a scope, a name or a sensible weight there is none', async () => {
    const operator = await h.withKey('operate')
    expect((await operator.post('/v1/keys', { name: 'x', scopes: ['submit'] })).json).toMatchObject({ status: 403, field: 'scopes' })
    for (const body of [{ name: '' }, { name: 'a\u0000' }, { name: 'x', scopes: [] }, { name: 'x', scopes: ['operate'], weight: 0 }])
      expect((await operator.post('/v1/keys', body)).status).toBe(422)
  })

  it('the first one closes the farm', async () => {
    const { json } = await h.client.post('/v1/keys', { name: 'first', scopes: ['operate', 'read'] })
    expect((await h.client.get('/v1/keys')).status).toBe(401)
    expect((await new ApiClient(h.url, { key: json.key as string }).get('/v1/keys')).json.keys).toHaveLength(1)
  })
})

describe('scopes', () => {
  const requests = [
    ['submit', 'POST', '/v1/sessions'],
    ['submit', 'POST', '/v1/sessions/x/retry'],
    ['read', 'GET', '/v1/sessions'],
    ['read', 'GET', '/v1/sessions/x'],
    ['read', 'GET', '/v1/sessions/x/receipt'],
    ['read', 'GET', '/v1/sessions/x/events'],
    ['read', 'GET', '/v1/workflows'],
    ['read', 'GET', '/v1/workflows/image-generation'],
    ['read', 'GET', '/v1/workers'],
    ['read', 'GET', `/v1/artifacts/${'0'.repeat(64)}`],
    ['control', 'POST', '/v1/sessions/x/pause'],
    ['control', 'POST', '/v1/sessions/x/resume'],
    ['control', 'POST', '/v1/sessions/x/cancel'],
    ['control', 'DELETE', '/v1/sessions/x'],
    ['control', 'POST', '/v1/sessions/x/before'],
    ['operate', 'GET', '/v1/keys'],
    ['operate', 'DELETE', '/v1/keys/x'],
    ['operate', 'GET', '/admin/queues'],
    ['operate', 'GET', '/admin/queues/api/queues'],
    ['operate', 'PUT', '/admin/queues/api/queues/pause'],
  ] as const

  it.each(requests)('%s is what %s %s needs', async (scope, method, path) => {
    const body = path === '/v1/sessions' ? sketchOf('scopes') : path.endsWith('/before') ? { session: 'x' } : undefined
    const options = method === 'POST' && body ? { body } : {}
    const others = await h.withKey(...scopes.filter((other) => other !== scope))
    const refused = await others.request(method, path, options)
    expect(refused.json).toMatchObject({ status: 403, code: 'api.forbidden', detail: expect.stringContaining(scope) })

    const owner = await h.withKey(scope)
    const answer = await owner.request(method, path, options)
    expect(answer.json?.code).not.toBe('api.forbidden')
    expect(answer.status).not.toBe(401)
  })
})

describe('a key sees its own sessions', () => {
  const own = ['submit', 'read', 'control'] as const

  it('and of others not even that they exist', async () => {
    const [ann, bob] = [await h.withKey(...own), await h.withKey(...own)]
    const { id } = (await ann.post('/v1/sessions', sketchOf('hers'))).json
    expect((await ann.get(`/v1/sessions/${id}`)).json.keyId).toBe(ann.keyId)

    const unknown = (await bob.get('/v1/sessions/0-00000000000000000000000000')).json
    const requests = [
      ['GET', ''],
      ['GET', '/receipt'],
      ['GET', '/events'],
      ['POST', '/pause'],
      ['POST', '/resume'],
      ['POST', '/cancel'],
      ['POST', '/retry'],
      ['DELETE', ''],
    ] as const
    for (const [method, rest] of requests) {
      const { json } = await bob.request(method, `/v1/sessions/${id}${rest}`)
      expect({ ...json, requestId: '', detail: '' }).toEqual({ ...unknown, requestId: '', detail: '' })
    }
    expect((await bob.get('/v1/sessions')).json.sessions).toEqual([])
    expect((await ann.get('/v1/sessions')).json.sessions.map((session: { id: string }) => session.id)).toEqual([id])
    expect((await ann.get(`/v1/sessions/${id}`)).json.status).toBe('queued')
  })

  it('one idempotency key of two API keys means two sessions', async () => {
    const [ann, bob] = [await h.withKey(...own), await h.withKey(...own)]
    const body = sketchOf('same')
    const hers = await ann.post('/v1/sessions', body, { 'Idempotency-Key': 'one' })
    const his = await bob.post('/v1/sessions', body, { 'Idempotency-Key': 'one' })
    expect([hers.status, his.status]).toEqual([202, 202])
    expect(hers.json.id).not.toBe(his.json.id)
  })

  it('and its own pictures', async () => {
    const [ann, bob] = [await h.withKey(...own), await h.withKey(...own)]
    const { id } = (await ann.post('/v1/sessions', sketchOf('a picture'))).json
    const sha256 = await h.finish(id)
    expect((await ann.get(`/v1/artifacts/${sha256}`)).status).toBe(200)
    expect((await bob.get(`/v1/artifacts/${sha256}`)).json).toMatchObject({ status: 404, code: 'artifact.unknown' })
    const known = { headers: { 'If-None-Match': `"${sha256}"` } }
    expect((await bob.get(`/v1/artifacts/${sha256}`, known)).status).toBe(404)
    // The same bytes, drawn for him as well, are his as well.
    const his = (await bob.post('/v1/sessions', sketchOf('a picture'))).json
    await h.finish(his.id)
    expect((await bob.get(`/v1/artifacts/${sha256}`)).status).toBe(200)
  })
})
