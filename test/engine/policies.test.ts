/** Policies over HTTP: versions, trial, activation, roll-back, whom they apply to, and what a session is pinned to. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keys } from '../../src/keys.ts'
import { picture, startHarness, type Harness } from '../api/harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

/** Lets unchecked pictures pass: this harness has no classifier. */
const document = (block: number, more: Record<string, unknown> = {}) => ({
  classifiers: ['none'],
  categories: { violence: { block } },
  allowUnchecked: true,
  ...more,
})
const add = async (name: string, policy: Record<string, unknown>) => (await h.client.post('/v1/policies', { name, policy })).json
const activate = (name: string, version: number, more: Record<string, unknown> = {}) =>
  h.client.post(`/v1/policies/${name}/activate`, { version, ...more })
const applyTo = (who: string, policy: string | null) => h.client.request('PUT', `/v1/policies/applied/${who}`, { body: { policy } })
const judgesOf = async (input: Record<string, unknown> = {}, client = h.client): Promise<string[]> => {
  const { status, json } = await client.post('/v1/sessions', picture(input))
  expect(status).toBe(202)
  await h.engine.control(json.id as string, 'cancel')
  const { safety } = json.input as { safety?: { policies: { name: string; version: number }[] } }
  return (safety?.policies ?? []).map(({ name, version }) => `${name}@${version}`)
}

describe('a policy', () => {
  it('is written as versions that do not apply before they are activated', async () => {
    expect(await judgesOf()).toEqual([])
    expect(await add('house', document(0.9))).toMatchObject({ name: 'house', version: 1, createdBy: null })
    expect(await add('house', document(0.5))).toMatchObject({ version: 2 })
    expect((await applyTo('default', 'house')).json).toMatchObject({ code: 'safety.policy_inactive', field: 'policy' })
    expect((await h.client.get('/v1/policies')).json).toEqual({
      policies: [{ name: 'house', newest: 2, active: null, appliesTo: [] }],
    })
    expect((await activate('house', 1)).json).toMatchObject({ version: 1, policy: { categories: { violence: { block: 0.9 } } } })
    expect(await judgesOf()).toEqual([])
    await applyTo('default', 'house')
    expect(await judgesOf()).toEqual(['house@1'])
  })

  it('is tried on samples before it is activated, against the version in force, and changes nothing by that', async () => {
    const samples = [
      { name: 'calm', scores: { violence: 0.1 }, expected: 'allow' },
      { name: 'middle', scores: { violence: 0.6 }, expected: 'block' },
    ]
    const { status, json } = await h.client.post('/v1/policies/house/try', { version: 2, samples })
    expect(status).toBe(200)
    expect(json).toMatchObject({ samples: 2, asExpected: 2, changes: { version: 1, stricter: 1, milder: 0 } })
    expect(await judgesOf()).toEqual(['house@1'])
    expect((await h.client.get('/v1/policies/house/differences?from=1&to=2')).json.differences).toEqual([
      { at: 'categories.violence', from: { block: 0.9 }, to: { block: 0.5 } },
    ])
    await activate('house', 2)
    expect(await judgesOf()).toEqual(['house@2'])
  })

  it('is rolled back to what was in force before, and says who did what', async () => {
    expect((await activate('house', 1, { instead: 1 })).json).toMatchObject({ status: 409, code: 'safety.policy_conflict' })
    expect((await h.client.post('/v1/policies/house/rollback', { instead: 2 })).json).toMatchObject({ version: 1 })
    expect(await judgesOf()).toEqual(['house@1'])
    expect((await h.client.post('/v1/policies/house/rollback', {})).json).toMatchObject({ status: 409, code: 'safety.nothing_before' })
    const { changes } = (await h.client.get('/v1/policies/house')).json
    expect(changes.map(({ change, version }: { change: string; version: number }) => `${change} ${version}`)).toEqual([
      'rolled back 1',
      'activated 2',
      'activated 1',
    ])
  })

  it('adds to those that apply anyway when a request names it, and cannot take their place', async () => {
    await add('strict', document(0.1))
    await activate('strict', 1)
    expect(await judgesOf({ safety: { policy: 'strict' } })).toEqual(['house@1', 'strict@1'])
    expect(await judgesOf({ safety: { policy: 'house' } })).toEqual(['house@1'])
    expect((await h.client.post('/v1/sessions', picture({ safety: { policy: 'nobody' } }))).json).toMatchObject({
      status: 422,
      code: 'safety.policy_unknown',
      field: 'input.safety.policy',
    })
  })

  it('refuses at once what its rules say of the prompt alone, and names the rule', async () => {
    await add('words', document(0.9, { rules: [{ name: 'no-gore', action: 'block', words: ['gore'] }] }))
    await activate('words', 1)
    const answer = await h.client.post('/v1/sessions', picture({ prompt: 'all GORE', safety: { policy: 'words' } }))
    expect(answer.json).toMatchObject({ status: 422, code: 'safety.refused', field: 'input.prompt' })
    expect(answer.json.detail).toBe('rule no-gore of policy words, version 1, refuses this prompt')
  })

  it('refuses everything while its classifier is not there, unless it allows that', async () => {
    await add('closed', { ...document(0.5), allowUnchecked: false })
    await activate('closed', 1)
    expect((await h.client.post('/v1/sessions', picture({ safety: { policy: 'closed' } }))).json).toMatchObject({
      status: 422,
      code: 'safety.unavailable',
      field: 'input.safety',
    })
  })

  it.each([
    ['/v1/policies', { name: 'Bad Name', policy: document(0.5) }, 'name'],
    ['/v1/policies', { name: 'bad', policy: { classifiers: ['c'] } }, 'policy.categories'],
    [
      '/v1/policies',
      { name: 'bad', policy: document(0.5, { rules: [{ name: 'r', action: 'block', pattern: '(?=x)' }] }) },
      'policy.rules.0.pattern',
    ],
    ['/v1/policies', { name: 'bad', policy: document(2) }, 'policy.categories.violence.block'],
    ['/v1/policies/house/try', { version: 1, samples: [{ scores: { Violence: 1 } }] }, 'samples.0.scores.Violence'],
  ])('is refused at %s with its field: %j', async (path, body, field) => {
    const { json } = await h.client.post(path, body)
    expect(json).toMatchObject({ status: 422, code: 'api.invalid', field })
    expect((await h.client.get('/v1/policies')).json.policies.map(({ name }: { name: string }) => name)).not.toContain('bad')
  })

  it.each(['/v1/policies/nobody', '/v1/policies/house/versions/99', '/v1/policies/house/differences?from=1&to=99'])(
    'that is not there is 404: %s',
    async (path) => expect((await h.client.get(path)).json).toMatchObject({ status: 404, code: 'safety.policy_unknown' }),
  )

  it('rolled back and activated again while others submit: each session has one whole version', { timeout: 60_000 }, async () => {
    let stop = false
    const turning = (async () => {
      while (!stop) {
        await activate('house', 2)
        await h.client.post('/v1/policies/house/rollback', {})
      }
    })()
    const limits: Record<number, number> = { 1: 0.9, 2: 0.5 }
    const seen = new Set<number>()
    for (let i = 0; i < 40; i++) {
      const { json } = await h.client.post('/v1/sessions', picture())
      await h.engine.control(json.id as string, 'cancel')
      const [own] = json.input.safety.policies as { version: number; categories: { violence: { block: number } } }[]
      expect(own?.categories.violence.block).toBe(limits[own?.version ?? 0])
      seen.add(own?.version ?? 0)
    }
    stop = true
    await turning
    expect(seen).toEqual(new Set([1, 2]))
    expect((await h.client.get('/v1/policies/house')).json.active).toBe(1)
  })
})

describe('who may do what, once there are keys', () => {
  it('only operators change policies; a key of its own policy is judged by that', async () => {
    const operator = await h.withKey('submit', 'read', 'control', 'operate')
    const user = await h.withKey('submit', 'read', 'control')
    for (const [path, body] of [
      ['/v1/policies', { name: 'x', policy: document(0.5) }],
      ['/v1/policies/house/activate', { version: 1 }],
      ['/v1/policies/house/rollback', {}],
    ] as const)
      expect((await user.post(path, body)).json).toMatchObject({ status: 403, code: 'api.forbidden' })
    expect((await operator.request('PUT', '/v1/policies/applied/nobody', { body: { policy: 'house' } })).json).toMatchObject({
      code: 'key.unknown',
      field: 'who',
    })
    await operator.request('PUT', `/v1/policies/applied/${user.keyId}`, { body: { policy: 'strict' } })
    expect(await judgesOf({}, user)).toEqual(['strict@1'])
    expect(await judgesOf({}, operator)).toEqual(['house@1'])
    expect(await judgesOf({ safety: { policy: 'house' } }, user)).toEqual(['strict@1', 'house@1'])
  })

  it('previews of pictures that a policy is to judge are for operators', async () => {
    const [operator, user] = [await h.withKey('submit', 'read', 'control', 'operate'), await h.withKey('submit', 'read', 'control')]
    const { id } = (await user.post('/v1/sessions', picture())).json as { id: string }
    expect((await user.get(`/v1/sessions/${id}/preview`)).json).toMatchObject({ status: 403, code: 'safety.withheld' })
    expect((await operator.get(`/v1/sessions/${id}/preview`)).json).toMatchObject({ status: 404, code: 'session.no_preview' })
    await h.engine.control(id, 'cancel')
  })

  it('a blocked picture is for operators, for as long as the policy says', async () => {
    const [operator, user] = [await h.withKey('read', 'operate'), await h.withKey('read')]
    const sha256 = await h.artifacts.put(Buffer.from('89504e470d0a1a0a', 'hex'), 'image')
    await h.port.withhold(sha256, 3600)
    expect((await operator.get(`/v1/artifacts/${sha256}`)).status).toBe(200)
    expect((await user.get(`/v1/artifacts/${sha256}`)).json).toMatchObject({ status: 404, code: 'artifact.unknown' })
    expect(await h.redis.pttl(keys.blocked(sha256))).toBeGreaterThan(3_000_000)
    await h.redis.del(keys.blocked(sha256))
    expect((await operator.get(`/v1/artifacts/${sha256}`)).status).toBe(404)
  })
})
