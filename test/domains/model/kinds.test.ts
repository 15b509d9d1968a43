/** Models of several kinds that have one name: which is meant, through HTTP, the client and the command line. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DarkroomClient } from '../../../src/client/index.ts'
import { run } from '../../support/command.ts'
import { startFarm, type Farm } from '../../support/farm.ts'
import { safetensors, type Tensors } from '../../support/headers.ts'
import { vae } from '../../support/model-headers.ts'
import { writeModel } from '../../support/model.ts'
import { eventually } from '../../support/wait.ts'

let farm: Farm
let client: DarkroomClient
let root: string
const lora = { 'lora_unet_a.lora_down.weight': ['F16', [4, 32]], 'lora_unet_a.lora_up.weight': ['F16', [32, 4]] } as const
const control = {
  'controlnet_cond_embedding.conv_in.weight': ['F16', [16, 3, 3, 3]],
  'down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight': ['F16', [320, 768]],
} as const
async function put(path: string, tensors: Tensors): Promise<void> {
  const { head, body } = safetensors(tensors)
  await mkdir(join(root, path, '..'), { recursive: true })
  await writeFile(join(root, path), Buffer.concat([head, Buffer.alloc(body)]))
}

beforeAll(async () => {
  farm = await startFarm({ apis: 0, workers: 0, fake: ['--heartbeat-ms', '100'] })
  root = join(farm.folder, 'models')
  await writeModel(root, 'pastel')
  await put('loras/pastel.safetensors', lora)
  await put('controlnet/pastel.safetensors', control)
  await put('loras/twin.safetensors', lora)
  await put('vae/twin.safetensors', vae.original(4))
  await farm.addApi()
  await farm.addWorker()
  client = new DarkroomClient({ url: farm.client.url })
  await eventually('the models are listed', async () => (await client.models()).models.length === 6)
})
afterAll(() => farm[Symbol.asyncDispose]())

const darkroom = (...args: string[]) => run(args, { DARKROOM_URL: farm.client.url })
const get = (path: string) => farm.client.get(`/v1/models/${path}`)
const post = (path: string, body?: unknown) => farm.client.post(`/v1/models/${path}`, body, { Prefer: 'wait=30' })

describe('without a kind', () => {
  it('the one that draws is meant', async () => {
    expect((await get('pastel')).json).toMatchObject({ kind: 'checkpoint', status: 'usable' })
    expect(await client.run('model-inspect', { model: 'pastel' })).toMatchObject({ kind: 'checkpoint' })
  })

  it('and none draws: refused, with the kinds that there are', async () => {
    for (const path of ['twin', 'twin/status', 'twin/compatible'])
      expect(await get(path), path).toMatchObject({
        status: 409,
        json: { code: 'model.ambiguous', detail: '"twin" may be a lora or a vae', field: 'kind', remedy: /`kind`/ },
      })
    for (const verb of ['inspect', 'components', 'validate', 'hash', 'load', 'convert', 'cache', 'benchmark'])
      expect(await post(`twin/${verb}`, ['cache', 'benchmark'].includes(verb) ? {} : undefined), verb).toMatchObject({
        status: verb === 'benchmark' ? 422 : 409,
        json: { code: verb === 'benchmark' ? 'model.unusable' : 'model.ambiguous' },
      })
    expect(await farm.client.request('PUT', '/v1/models/twin/annotation', { body: { title: 'x' } })).toMatchObject({
      status: 409,
      json: { code: 'model.ambiguous' },
    })
    expect(await darkroom('models', 'show', 'twin')).toMatchObject({ code: 1, stderr: /may be a lora or a vae[^]*--kind/ })
  })
})

describe('with a kind', () => {
  it('every route reaches the one of that kind', async () => {
    expect((await get('pastel?kind=lora')).json).toMatchObject({ kind: 'lora', where: [{ path: join(root, 'loras/pastel.safetensors') }] })
    expect((await get('twin?kind=vae')).json).toMatchObject({ kind: 'vae' })
    expect((await get('pastel/compatible?kind=lora&width=512')).json).toMatchObject({ devices: [{ fits: false }] })
    const inspected = await post('pastel/inspect?kind=lora')
    expect(inspected).toMatchObject({ status: 200, json: { kind: 'lora', path: join(root, 'loras/pastel.safetensors') } })
    expect((await post('twin/components?kind=vae')).json).toMatchObject({ path: join(root, 'vae/twin.safetensors') })
    expect((await post('twin/validate?kind=lora')).json).toMatchObject({ path: join(root, 'loras/twin.safetensors') })
    const hashes = await Promise.all(['checkpoint', 'lora', 'controlnet'].map((kind) => post(`pastel/hash?kind=${kind}`)))
    expect(new Set(hashes.map(({ json }) => (json as { model: { bodyHash: string } }).model.bodyHash)).size).toBe(3)
  })

  it('an annotation follows the one that is meant', async () => {
    await eventually('it is hashed', async () => (await client.model('pastel', { kind: 'lora' })).bodyHash !== null)
    await client.annotateModel('pastel', { title: 'strokes' }, { kind: 'lora' })
    expect((await client.model('pastel', { kind: 'lora' })).annotation).toMatchObject({ title: 'strokes' })
    expect((await client.model('pastel')).annotation).toBeNull()
    await client.removeAnnotation('pastel', { kind: 'lora' })
    expect((await client.model('pastel', { kind: 'lora' })).annotation).toBeNull()
  })

  it('what nobody has of that kind is refused by the kinds that there are', async () => {
    expect(await get('pastel?kind=vae')).toMatchObject({
      status: 422,
      json: { code: 'model.unknown', detail: /^"pastel" is no vae but a checkpoint and a controlnet and a lora$/, field: 'kind' },
    })
    expect(await get('nonesuch?kind=vae')).toMatchObject({ status: 404, json: { code: 'api.not_found' } })
    expect(await get('pastel?kind=brush')).toMatchObject({ status: 422, json: { code: 'api.invalid', field: 'kind' } })
    expect(await post('pastel/inspect?kind=vae')).toMatchObject({ status: 422, json: { code: 'model.unknown', detail: /is no vae/ } })
    expect(await post('pastel/benchmark?kind=lora', {})).toMatchObject({ status: 422, json: { code: 'model.unusable' } })
    expect(await post('pastel/inspect?king=lora')).toMatchObject({ status: 422, json: { code: 'api.invalid' } })
  })
})

it('one of two that are resident or cached goes alone', async () => {
  for (const kind of ['checkpoint', 'controlnet'] as const) {
    expect(await client.run('model-loading', { model: 'pastel', kind })).toMatchObject({ id: 'pastel', wasResident: false })
    expect(await client.run('model-cache', { model: 'pastel', kind })).toMatchObject({ id: 'pastel', kind })
  }
  const whereabouts = async (kind: 'checkpoint' | 'controlnet' | 'lora') => {
    const { resident, cached } = await client.modelStatus('pastel', { kind })
    return `${resident.length},${cached.length}`
  }
  await eventually('both are told of', async () => `${await whereabouts('checkpoint')} ${await whereabouts('controlnet')}` === '1,1 1,1')
  expect(await whereabouts('lora')).toBe('0,0')
  expect((await post('pastel/unload?kind=controlnet', {})).json).toMatchObject({ unloaded: [{ id: 'pastel' }] })
  expect((await post('pastel/evict?kind=controlnet', {})).json).toMatchObject({ evicted: [{ id: 'pastel', kind: 'controlnet' }] })
  await eventually('one is gone', async () => `${await whereabouts('checkpoint')} ${await whereabouts('controlnet')}` === '1,1 0,0')
  await client.run('model-load', { model: 'pastel', kind: 'controlnet' })
  expect((await client.run('model-unload', { model: 'pastel' })).unloaded).toHaveLength(2)
  expect((await client.run('model-evict', { model: 'pastel' })).evicted.map(({ kind }) => kind)).toContain('checkpoint')
})

it('the command line takes it as --kind', async () => {
  expect((await darkroom('models', 'show', 'pastel', '--kind', 'lora')).stdout).toMatch(/^kind +lora/m)
  expect((await darkroom('models', 'hash', 'twin', '--kind', 'vae')).stdout).toMatch(/^[0-9a-f]{64} {2}twin\n$/)
  expect((await darkroom('models', 'annotate', 'twin', '--kind', 'vae', '--title', 'soft')).stdout).toMatch(/title +soft/)
  expect((await client.model('twin', { kind: 'vae' })).annotation).toMatchObject({ title: 'soft' })
  expect((await darkroom('models', 'cache', 'pastel', '--kind', 'controlnet')).stdout).toMatch(/^cached pastel/)
  expect(await darkroom('models', 'inspect', 'pastel', '--kind', 'vae')).toMatchObject({ code: 1, stderr: /is no vae/ })
  expect(await darkroom('models', 'show', 'pastel', '--kind', 'brush')).toMatchObject({ code: 2 })
})
