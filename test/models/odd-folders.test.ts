/** Each model for itself: whatever else lies in the folders, a sound model draws, and what is wrong is listed. */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Model, ModelPage } from '../../src/client/index.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { makeOddModels, oddModels } from '../support/odd-models.ts'
import { eventually } from '../support/wait.ts'

let farm: Farm
let root: string
let cleanUp: () => Promise<void>
beforeAll(async () => {
  // Before any process starts: nothing of it may keep one from starting.
  farm = await startFarm({ apis: 0, workers: 0 })
  root = join(farm.folder, 'models', 'odd')
  cleanUp = await makeOddModels(root)
  await farm.addApi()
  await farm.addWorker()
  await eventually('the folders are looked at', async () => (await list()).some(({ id }) => id === 'darkroom-tiny'))
})
afterAll(async () => {
  await cleanUp()
  await rm(join(farm.folder, 'outside'), { recursive: true, force: true })
  await farm[Symbol.asyncDispose]()
})

async function list(): Promise<Model[]> {
  const models: Model[] = []
  let cursor: string | null = ''
  while (cursor !== null) {
    const { json, status } = await farm.client.get(`/v1/models?limit=40${cursor && `&cursor=${cursor}`}`)
    expect(status).toBe(200)
    const page = json as ModelPage
    models.push(...page.models)
    cursor = page.next
  }
  return models
}

it('draws with the sound model, and is ready', async () => {
  expect((await farm.client.get('/v1/ready')).status).toBe(200)
  expect(await farm.pictures(await farm.submit())).toHaveLength(1)
})

describe('what is odd is listed with its reason and path, and nothing else of it', () => {
  it.each(oddModels)('$name', async ({ name, listed }) => {
    const models = (await list()).filter(({ where }) => where.some(({ path }) => path.startsWith(join(root, name) + '/')))
    for (const [path, { status, why }] of Object.entries(listed)) {
      const model = models.find(({ where }) => where.some((each) => each.path === join(root, name, path)))
      expect(model, `${path} is listed; there are ${models.map(({ where }) => where[0]?.path).join(', ')}`).toBeDefined()
      expect([status].flat(), `${path}: ${model?.why}`).toContain(model?.status)
      if (model?.status !== 'usable') expect(model?.why).toMatch(why ?? /./)
      if (model?.reason) expect(model.reason.remedy).toMatch(/\w/)
    }
    if (Object.keys(listed).length === 0) expect(models).toEqual([])
  })

  it('a socket', async () => {
    const model = (await list()).find(({ where }) => where[0]?.path === join(root, 'socket/a.safetensors'))
    expect(model).toMatchObject({ status: 'refused', why: expect.stringMatching(/a socket/) as string })
  })
})

it('draws with models of a hub cache and behind links inside a root', async () => {
  expect(await farm.pictures(await farm.submit({ model: 'odd/hub-cache/someone/drawer' }))).toHaveLength(1)
  expect(await farm.pictures(await farm.submit({ model: 'odd/link-inside/linked' }))).toHaveLength(1)
})

it('refuses what cannot be used at submit, by its name, with the words of its verdict and the nearest that can', async () => {
  const refused = async (model: string): Promise<unknown> => {
    const { status, json } = await farm.client.post('/v1/sessions', { workflow: 'image-generation', input: { prompt: 'x', model } })
    return { status, ...(json as object) }
  }
  expect(await refused('odd/another-family/m')).toMatchObject({ status: 422, code: 'model.unusable', field: 'input.model' })
  expect(await refused('odd/lfs-pointers/m')).toMatchObject({
    status: 422,
    code: 'model.unusable',
    field: 'input.model',
    detail: expect.stringMatching(/git-lfs.*; usable are.*/) as string,
  })
  expect(await refused('darkroom-tinny')).toMatchObject({
    status: 422,
    code: 'model.unknown',
    detail: expect.stringMatching(/darkroom-tiny/) as string,
  })
})

it('holds the model’s own settings to the limits of a request', async () => {
  const submitted = (more: object) =>
    farm.client.post('/v1/sessions', { workflow: 'image-generation', input: { prompt: 'x', model: 'odd/immense-settings/m', ...more } })
  const { status, json } = await submitted({})
  expect({ status, json }).toMatchObject({ status: 422, json: { code: 'api.invalid', field: 'input.width' } })
  expect((json as { problems: { field: string; message: string }[] }).problems).toContainEqual({
    field: 'input.steps',
    message: expect.stringMatching(/own setting of model odd\/immense-settings\/m is 100000/) as string,
  })
  const said = await submitted({ width: 64, height: 64, steps: 2 })
  expect(said.status).toBe(202)
  expect(await farm.pictures((said.json as { id: string }).id)).toHaveLength(1)
})
