/** Classifiers that are broken in every way: no picture gets out that a policy wanted checked, and nobody hangs. */
import { rm } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { enforce, folderOf, untilListed, writeClassifier, type Told } from '../support/classifiers.ts'
import { itemsOf } from '../support/batches.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'

const category = 'custom/tested'
const scored = (score: string): Told => ({ answer: `{"scores": [[{"category": "${category}", "score": ${score}}]]}` })

/**
 * By the name of its classifier: what it does, and the code of the error that its session ends with. Answers that are
 * no scores are told apart by the protocol (test/workers/python/answers.unit.test.ts); two of them come this whole way.
 */
const faults: Record<string, [told: Told, code: string]> = {
  hangs: [{ fault: 'hang' }, 'worker.child_hung'],
  dies: [{ fault: 'crash' }, 'worker.child_died'],
  exits: [{ fault: 'exit:75' }, 'worker.child_died'],
  'writes-no-json': [{ fault: 'garbage', answer: 'x' }, 'worker.protocol'],
  'writes-half-a-line': [{ fault: 'partial-line' }, 'worker.child_died'],
  'writes-without-end': [{ fault: 'long-line', answer: '{}' }, 'worker.protocol'],
  'is-broken': [{ fault: 'error:safety.classifier_broken' }, 'safety.classifier_broken'],
  'cannot-load': [{ fault: 'error:model.load_failed' }, 'model.load_failed'],
  'has-lost-a-file': [null, 'worker.failed'],
  'says-nan': [scored('NaN'), 'worker.protocol'],
  'has-no-scores': [{ answer: '{"scores": [[]]}' }, 'worker.protocol'],
  'says-it-of-another': [{ scores: { 'custom/other': 0 } }, 'safety.classifier_broken'],
}
const names = Object.keys(faults)
const sound = ['removed', 'replaced', 'killed', 'odd']

let farm: Farm
beforeAll(async () => {
  farm = await startFarm({
    workers: 3,
    fake: ['--call-ms', '1', '--heartbeat-ms', '300'],
    stall: { stepMs: 150, heartbeatMs: 4000 },
  })
  for (const name of names) await writeClassifier(farm, name, faults[name]?.[0] ?? null)
  await writeClassifier(farm, 'killed', { fault: 'hang' })
  for (const name of ['removed', 'replaced']) await writeClassifier(farm, name, { scores: { [category]: 0 } })
  await writeClassifier(farm, 'odd', { scores: { [category]: 0.6 }, odd: true })
  await untilListed(farm, [...names, ...sound])
}, 120_000)
afterAll(() => farm[Symbol.asyncDispose]())

const under = (policy: string, input: Record<string, unknown> = {}) => farm.submit({ steps: 2, safety: { policy }, ...input })
const policyOf = (classifier: string, more: Record<string, unknown> = {}) => ({
  classifiers: [classifier],
  categories: { [category]: { block: 0.5 } },
  ...more,
})
const saved = async (id: string): Promise<number> =>
  (await farm.history(id)).filter(({ type, step }) => type === 'step.completed' && step === 'postprocessing.save').length

async function endOf(id: string) {
  const session = await eventually(
    `${id} has ended`,
    async () => {
      const found = await farm.get(id)
      return found.endedAt !== null && found
    },
    240_000,
  )
  return { status: session.status, code: session.error?.code, output: session.output }
}

describe('a policy that wants every picture checked', () => {
  /** All at once: what each costs is mostly the wait before it is tried again. */
  const ids = new Map<string, string>()
  beforeAll(async () => {
    for (const name of names) await enforce(farm, `p-${name}`, policyOf(name))
    await Promise.all(names.map(async (name) => ids.set(name, await under(`p-${name}`))))
  }, 60_000)

  it.each(names)('gets none where its classifier %s', { timeout: 240_000 }, async (name) => {
    const id = ids.get(name) ?? ''
    expect(await endOf(id)).toEqual({ status: 'failed', code: faults[name]?.[1], output: null })
    expect(await saved(id)).toBe(0)
  })
})

describe('a classifier that is not there', () => {
  it('refuses what comes when its classifier has been removed', async () => {
    await enforce(farm, 'p-removed', policyOf('removed'))
    await rm(folderOf(farm, 'removed'), { recursive: true })
    const answer = await eventually('it is missed', async () => {
      const tried = await farm.client.post('/v1/sessions', {
        workflow: 'image-generation',
        input: { prompt: 'x', safety: { policy: 'p-removed' } },
      })
      if (tried.status === 202) await farm.client.post(`/v1/sessions/${(tried.json as { id: string }).id}/cancel`)
      return tried.status === 422 && tried
    })
    expect(answer.json).toMatchObject({ code: 'safety.unavailable', field: 'input.safety' })
  })

  it('holds a picture whose classifier goes while it is drawn, until it is there again', { timeout: 60_000 }, async () => {
    await enforce(farm, 'p-replaced', policyOf('replaced'))
    const open = await farm.gate(91, 1)
    const id = await under('p-replaced', { seed: 91 })
    await farm.untilCall(id, 1)
    await rm(folderOf(farm, 'replaced'), { recursive: true })
    await eventually('it is missed', async () => (await farm.client.get('/v1/models/replaced')).status === 404)
    await open()
    await eventually('it waits', async () => (await farm.get(id)).waiting?.includes('replaced'))
    expect(await saved(id)).toBe(0)
    await writeClassifier(farm, 'replaced', { scores: { [category]: 0 } })
    expect(await farm.pictures(id)).toHaveLength(1)
  })

  it('keeps it back when the worker is killed while its classifier looks', { timeout: 60_000 }, async () => {
    await enforce(farm, 'p-killed', policyOf('killed'))
    const id = await under('p-killed', { seed: 92 })
    const began = await eventually('the check began', async () =>
      (await farm.history(id)).find(({ type, step }) => type === 'step.started' && step === 'postprocessing.check'),
    )
    await farm.worker(began.worker).kill()
    expect(await endOf(id)).toMatchObject({ status: 'failed', output: null })
    expect(await saved(id)).toBe(0)
    await farm.addWorker()
  })
})

describe('a policy that allows unchecked pictures', () => {
  it.each(['is-broken', 'says-nan', 'says-it-of-another'])(
    'lets it pass, and says so, where its classifier %s',
    { timeout: 60_000 },
    async (name) => {
      await enforce(farm, `lax-${name}`, policyOf(name, { allowUnchecked: true }))
      const { output } = await farm.until(await under(`lax-${name}`, { seed: 93 }), 'succeeded')
      expect(output).toMatchObject({ images: [{ seed: 93, safety: { action: 'allow', unchecked: expect.any(String) as string } }] })
    },
  )

  it('does so too where there is no such classifier at all', async () => {
    await enforce(farm, 'lax-absent', policyOf('nowhere', { allowUnchecked: true }))
    const { output } = await farm.until(await under('lax-absent', { seed: 94 }), 'succeeded')
    expect(output).toMatchObject({ images: [{ safety: { unchecked: 'there is no classifier nowhere', classifiers: [] } }] })
  })

  it('changes nothing where another policy does not', async () => {
    await farm.client.request('PUT', '/v1/policies/applied/default', { body: { policy: 'p-is-broken' } })
    expect(await endOf(await under('lax-is-broken'))).toMatchObject({ status: 'failed', code: 'safety.classifier_broken' })
    await farm.client.request('PUT', '/v1/policies/applied/default', { body: { policy: null } })
  })
})

describe('pictures that are kept', () => {
  interface Kept {
    sha256: string
    safety: { action: string; scores: Record<string, { score: number }> }
  }
  /** A further version, which is not activated. */
  async function added(block: number, more: object = {}): Promise<number> {
    const policy = { classifiers: ['odd'], categories: { [category]: { block } }, ...more }
    return ((await farm.client.post('/v1/policies', { name: 'odd', policy })).json as { version: number }).version
  }
  const rejudged = async (body: object) => {
    const { status, json } = await farm.client.post('/v1/images/rejudge', body, { Prefer: 'wait=60' })
    expect({ status, json }).toMatchObject({ status: 200 })
    return json as { pictures: number; actions: object; stricter: number; milder: number; open: number; listed: object[]; more: number }
  }
  const check = async (body: object) => farm.client.post('/v1/images/check', body, { Prefer: 'wait=60' })

  it('are judged again by their scores, a thousand at once, while no device is free', { timeout: 240_000 }, async () => {
    await enforce(farm, 'odd', { classifiers: ['odd'], categories: { [category]: { flag: 0.5 } } })
    const base = { steps: 1, count: 64, safety: { policy: 'odd' } }
    const items = Array.from({ length: 16 }, (_, i) => ({ seed: 1000 * (i + 1) }))
    const { json } = await farm.client.post('/v1/sessions', { workflow: 'batch', input: { input: { prompt: 'x', ...base }, items } })
    const batch = (json as { id: string }).id
    await farm.until(batch, 'succeeded', 200_000)
    const drawn = (await itemsOf(farm, batch)).flatMap(({ output }) => (output?.images ?? []) as unknown as Kept[])
    expect(drawn.length).toBe(1024)
    const flagged = drawn.filter(({ safety }) => safety.action === 'flag')
    expect(flagged.length).toBeGreaterThan(300)
    // Every device is held meanwhile.
    const seeds = [71, 72, 73]
    const opens = await Promise.all(seeds.map((seed) => farm.gate(seed, 1)))
    const holders = await Promise.all(seeds.map((seed) => farm.submit({ seed, steps: 2 })))
    for (const id of holders) await farm.untilCall(id, 1)
    const version = await added(0.6)
    const found = await rejudged({ session: batch, policy: 'odd', version })
    for (const open of opens) await open()
    for (const id of holders) await farm.until(id, 'succeeded')
    expect(found).toMatchObject({
      pictures: 1024,
      actions: { allow: 1024 - flagged.length, flag: 0, blur: 0, block: flagged.length },
      stricter: flagged.length,
      milder: 0,
      open: 0,
      more: 0,
    })
    expect(found.listed.map((each) => (each as Kept).sha256).toSorted()).toEqual(flagged.map(({ sha256 }) => sha256).toSorted())
    // The truth of the judge: each verdict follows from the score that its drawing had.
    for (const { safety } of drawn) expect(safety.action === 'flag').toBe((safety.scores[category]?.score ?? 0) >= 0.5)
  })

  it('are looked at anew where that is asked for, and keep the new scores', { timeout: 60_000 }, async () => {
    const pictures = (await farm.pictures(await farm.submit({ seed: 5000, count: 20, steps: 1 }))).slice(0, 20)
    const version = await added(0.5)
    expect(await rejudged({ pictures, policy: 'odd', version })).toMatchObject({ pictures: 20, open: 20 })
    const seen = await rejudged({ pictures, policy: 'odd', version, anew: true })
    expect(seen).toMatchObject({ pictures: 20, open: 0 })
    expect(await rejudged({ pictures, policy: 'odd', version })).toEqual(seen)
  })

  it('are checked one by one, by a policy that is not in force too, and nothing is done with them', { timeout: 60_000 }, async () => {
    const [picture = ''] = await farm.pictures(await farm.submit({ seed: 6000 }))
    const version = await added(0, { rules: [{ name: 'no-x', action: 'flag', words: ['x'] }] })
    const { status, json } = await check({ picture, policy: 'odd', version, prompt: 'an x' })
    expect({ status, json }).toMatchObject({ status: 200, json: { action: 'block', policy: { name: 'odd', version } } })
    expect((json as { fired: { rule: string }[] }).fired.map(({ rule }) => rule)).toEqual([`category ${category}`, 'rule no-x'])
    expect((await farm.client.get(`/v1/artifacts/${picture}`)).status).toBe(200)
    expect((await check({ picture })).json).toMatchObject({
      status: 422,
      field: 'policy',
      detail: expect.stringMatching(/no policy applies/) as string,
    })
    expect((await check({ picture, policy: 'nobody' })).json).toMatchObject({ code: 'safety.policy_unknown', field: 'policy' })
    expect((await check({ picture, policy: 'p-is-broken' })).json).toMatchObject({ code: 'safety.classifier_broken' })
    expect((await check({ picture: '0'.repeat(64), policy: 'odd' })).json).toMatchObject({ code: 'artifact.unknown', field: 'picture' })
  })
})
