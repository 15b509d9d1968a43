/** Classifiers that are broken in every way: no picture gets out that a policy wanted checked, and nobody hangs. */
import { rm } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { enforce, folderOf, untilListed, writeClassifier, type Told } from '../support/classifiers.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'

const category = 'custom/tested'
const scored = (score: string): Told => ({ answer: `{"scores": [[{"category": "${category}", "score": ${score}}]]}` })

/** By the name of its classifier: what it does, and the code of the error that its session ends with. */
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
  'says-infinity': [scored('Infinity'), 'worker.protocol'],
  'says-null': [scored('null'), 'worker.protocol'],
  'says-two': [scored('2'), 'worker.protocol'],
  'says-less-than-nothing': [scored('-0.1'), 'worker.protocol'],
  'says-text': [scored('"0.1"'), 'worker.protocol'],
  'says-too-much': [scored('1e400'), 'worker.protocol'],
  'has-no-scores': [{ answer: '{"scores": [[]]}' }, 'worker.protocol'],
  'has-no-list': [{ answer: '{"scores": []}' }, 'worker.protocol'],
  'has-no-output': [{ answer: '{}' }, 'worker.protocol'],
  'says-it-of-another': [{ scores: { 'custom/other': 0 } }, 'safety.classifier_broken'],
}
const names = Object.keys(faults)

let farm: Farm
beforeAll(async () => {
  farm = await startFarm({
    workers: 2,
    fake: ['--call-ms', '1', '--heartbeat-ms', '300'],
    stall: { stepMs: 150, heartbeatMs: 4000 },
  })
  for (const name of [...names, 'removed', 'replaced', 'killed', 'good'])
    await writeClassifier(
      farm,
      name,
      name in faults ? (faults[name]?.[0] ?? null) : name === 'killed' ? { fault: 'hang' } : { scores: { [category]: 0 } },
    )
  await untilListed(farm, [...names, 'removed', 'replaced', 'killed', 'good'])
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

describe.concurrent('a policy that wants every picture checked', () => {
  it.each(names)('gets none where its classifier %s', { timeout: 240_000 }, async (name) => {
    await enforce(farm, `p-${name}`, policyOf(name))
    const id = await under(`p-${name}`)
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
