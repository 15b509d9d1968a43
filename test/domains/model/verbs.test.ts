/** What is done with models where they lie, and on a device: through HTTP, the client and the command line. */
import { createHash } from 'node:crypto'
import { mkdir, open, readdir, readFile, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DarkroomClient, type ModelStatus } from '../../../src/client/index.ts'
import { run } from '../../support/command.ts'
import { startFarm, type Farm } from '../../support/farm.ts'
import { safetensors as image, writeImage } from '../../support/headers.ts'
import { isMarked, writeMarking } from '../../support/pickles.ts'
import { eventually } from '../../support/wait.ts'

let farm: Farm
let client: DarkroomClient
let root: string
const lora = { 'lora_unet_a.lora_down.weight': ['F16', [4, 32]], 'lora_unet_a.lora_up.weight': ['F16', [32, 4]] } as const
beforeAll(async () => {
  farm = await startFarm({ apis: 0, workers: 0, fake: ['--heartbeat-ms', '100'] })
  root = join(farm.folder, 'models')
  const { head, body } = image({ ...lora })
  writeImage(join(root, 'cut.safetensors'), { head, body: body - 100 })
  await writeFile(join(root, 'sound.safetensors'), Buffer.concat([head, Buffer.alloc(body)]))
  await utimes(join(root, 'sound.safetensors'), 1_700_000_000, 1_700_000_000)
  writeMarking(join(root, 'stranger.ckpt'), join(farm.folder, 'mark'))
  await mkdir(join(root, 'sub'), { recursive: true })
  writeMarking(join(root, 'sub', 'renamed.safetensors'), join(farm.folder, 'mark'))
  await farm.addApi()
  await farm.addWorker()
  client = new DarkroomClient({ url: farm.client.url })
  await eventually('the models are listed', async () => (await client.models()).models.length >= 5)
})
afterAll(() => farm[Symbol.asyncDispose]())

const darkroom = (...args: string[]) => run(args, { DARKROOM_URL: farm.client.url })
const post = (path: string, body?: unknown) => farm.client.post(`/v1/models/${path}`, body, { Prefer: 'wait=30' })

describe('inspect and components', () => {
  it('say what the headers say, read anew', async () => {
    const told = await client.run('model-inspect', { model: 'darkroom-tiny' })
    expect(told).toMatchObject({ state: 'understood', kind: 'checkpoint', format: 'diffusers', path: join(root, 'darkroom-tiny') })
    expect(told.files.map(({ path }) => path)).toContain('unet/diffusion_pytorch_model.safetensors')
    const { json } = await post('darkroom-tiny/components')
    const { components, bytes } = json as { bytes: number; components: { name: string; bytes: number; precision?: string; at: string }[] }
    expect(components.map(({ name }) => name).toSorted()).toEqual(['text_encoder', 'unet', 'vae'])
    expect(components.find(({ name }) => name === 'unet')).toMatchObject({ bytes: 8, precision: 'fp32', at: 'unet' })
    expect(bytes).toBe(24)
  })

  it('of what is broken: why, and what to do', async () => {
    expect(await client.run('model-inspect', { model: 'cut' })).toMatchObject({ state: 'broken', reason: { code: 'incomplete' } })
    const { status, json } = await post('cut/components')
    expect({ status, json }).toMatchObject({ json: { code: 'model.unusable', detail: /Incomplete/, remedy: /Finish the download/ } })
  })

  it('refuse what is not there', async () => {
    for (const verb of ['inspect', 'components', 'validate', 'convert', 'unload', 'benchmark', 'optimize'])
      expect(await post(`nonesuch/${verb}`, ['unload', 'benchmark', 'optimize'].includes(verb) ? {} : undefined), verb).toMatchObject({
        status: 422,
        json: { code: 'model.unknown', detail: /nonesuch/ },
      })
  })
})

describe('validate', () => {
  it('finds nothing wrong with a sound one, and its hashes', async () => {
    const { code, stdout, stderr } = await darkroom('models', 'validate', 'sound')
    expect({ code, stderr }).toMatchObject({ code: 0, stderr: /100 % {2}done/ })
    const sha256 = createHash('sha256')
      .update(await readFile(join(root, 'sound.safetensors')))
      .digest('hex')
    expect(stdout).toMatch(new RegExp(`sha256 +${sha256}`))
    expect(stdout).toMatch(/is +sound/)
    expect(await client.run('model-validate', { model: 'darkroom-tiny' })).toMatchObject({ isValid: true, findings: [] })
  })

  it('says by tensor what is wrong, and exits 1', async () => {
    const { code, stdout } = await darkroom('models', 'validate', 'cut', '--json')
    expect({ code, output: JSON.parse(stdout) as unknown }).toMatchObject({
      code: 1,
      output: {
        isValid: false,
        findings: [{ code: 'incomplete' }, { tensor: 'lora_unet_a.lora_up.weight', message: /is cut: 156 bytes/ }],
      },
    })
  })

  it('finds bytes that changed behind the back of the file system', async () => {
    const before = await eventually('it is hashed', async () => {
      await client.run('model-validate', { model: 'sound' })
      return client.model('sound')
    })
    await using file = await open(join(root, 'sound.safetensors'), 'r+')
    await file.write(Buffer.from([1]), 0, 1, 600)
    await utimes(join(root, 'sound.safetensors'), 1_700_000_000, 1_700_000_000)
    const found = await client.run('model-validate', { model: 'sound' })
    expect(found.bodyHash).not.toBe(before.bodyHash)
    await file.write(Buffer.from([0]), 0, 1, 600)
    await utimes(join(root, 'sound.safetensors'), 1_700_000_000, 1_700_000_000)
  })
})

describe('hash', () => {
  it('is of a model of any kind, draws it or not', async () => {
    const body = createHash('sha256').update((await readFile(join(root, 'sound.safetensors'))).subarray(image({ ...lora }).head.length))
    expect(await darkroom('models', 'hash', 'sound')).toMatchObject({ code: 0, stdout: `${body.digest('hex')}  sound\n` })
    expect((await client.run('model-hash', { model: 'darkroom-tiny' })).model).toEqual({
      id: 'darkroom-tiny',
      bodyHash: (await client.model('darkroom-tiny')).bodyHash,
    })
  })
})

describe('load and unload', () => {
  it('tell seconds, bytes and speed; a resident one costs nothing; what went is named', async () => {
    const seen: number[] = []
    const first = await client.run(
      'model-loading',
      { model: 'darkroom-tiny' },
      { onFrame: (frame) => void (frame.kind === 'progress' && seen.push(frame.progress.fraction)) },
    )
    expect(first).toMatchObject({ id: 'darkroom-tiny', bytes: 1000, wasResident: false })
    expect(first.seconds).toBeGreaterThan(0)
    expect(first.gbPerS).toBeCloseTo(first.bytes / 1e9 / first.seconds)
    expect(seen).toEqual(seen.toSorted((a, b) => a - b))
    const { code, stdout } = await darkroom('models', 'load', 'darkroom-tiny')
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'darkroom-tiny was resident, 1000 B\n' })
    const status = await eventually('its worker tells of it', async () => {
      const told = await client.modelStatus('darkroom-tiny')
      return told.resident.length > 0 ? told : undefined
    })
    expect(status.resident).toMatchObject([{ worker: farm.workers[0]?.ready, bytes: 1000, precision: 'float32', isIdle: true }])
    expect(status.onDisk).toMatchObject([{ path: join(root, 'darkroom-tiny'), workers: [farm.workers[0]?.ready] }])
    const gone = await darkroom('models', 'unload', 'darkroom-tiny')
    expect(gone).toMatchObject({ code: 0, stdout: /^unloaded darkroom-tiny, 1000 B, from / })
    await eventually('it is gone', async () => (await client.modelStatus('darkroom-tiny')).resident.length === 0)
    expect(await client.run('model-unload', { model: 'darkroom-tiny' })).toMatchObject({ unloaded: [] })
  })

  it('a model that a session draws with is not unloaded', async () => {
    const open = await farm.gate(77, 3)
    const id = await farm.submit({ seed: 77 })
    await farm.untilCall(id, 3)
    await eventually('it is in use', async () => (await client.modelStatus('darkroom-tiny')).resident.some(({ isIdle }) => !isIdle))
    expect(await post('darkroom-tiny/unload', {})).toMatchObject({ json: { code: 'model.in_use', remedy: /have ended/ } })
    await open()
    expect(await farm.pictures(id)).toHaveLength(1)
  })

  it('is pinned first when nobody has hashed it', async () => {
    // The keys of hashes are dropped, as on a host that has never seen the model.
    const told = await post('darkroom-tiny/load')
    expect(told).toMatchObject({ status: 200, json: { id: 'darkroom-tiny', bytes: 1000 } })
  })
})

describe('annotations', () => {
  const put = (body: unknown, model = 'darkroom-tiny') => farm.client.request('PUT', `/v1/models/${model}/annotation`, { body })

  it('are kept by body hash, searched, and fill in what a request leaves out', async () => {
    const before = (await farm.get(await farm.submit({ seed: 1 }))).input
    const { code, stdout } = await darkroom(
      'models',
      'annotate',
      'darkroom-tiny',
      '--title',
      'Wee one',
      '--tag',
      'toy',
      '--tag',
      'Fast',
      '--set',
      'steps=3',
    )
    expect({ code, stdout }).toMatchObject({ code: 0, stdout: /settings +steps=3/ })
    const { models } = await client.models({ tag: 'fast' })
    expect(models).toMatchObject([{ id: 'darkroom-tiny', annotation: { title: 'Wee one', tags: ['toy', 'Fast'], settings: { steps: 3 } } }])
    expect((await client.models({ text: 'WEE toy' })).total).toBe(1)
    expect((await client.models({ name: 'sound' })).models.map(({ id }) => id)).toEqual(['sound'])
    const session = await farm.get(await farm.submit({ seed: 1 }))
    expect(session.input).toMatchObject({ ...before, steps: 3 })
    expect((await farm.get(await farm.submit({ seed: 1, steps: 5 }))).input).toMatchObject({ steps: 5 })
    await farm.until(session.id, 'succeeded')
    expect(await darkroom('models', 'annotate', 'darkroom-tiny', '--notes', 'for tests')).toMatchObject({ stdout: /title +Wee one/ })
    expect(await darkroom('models', 'annotate', 'darkroom-tiny', '--clear')).toMatchObject({ code: 0 })
    expect((await client.model('darkroom-tiny')).annotation).toBeNull()
    expect((await farm.get(await farm.submit({ seed: 1 }))).input).toMatchObject({ ...before })
  })

  it('are of a model that does not draw too, once it is hashed for them', async () => {
    const path = join(root, 'lora', 'late.safetensors')
    await mkdir(join(root, 'lora'), { recursive: true })
    const { head, body } = image({ ...lora }, { 'modelspec.title': 'late' })
    await writeFile(path, Buffer.concat([head, Buffer.alloc(body, 7)]))
    await eventually('it is listed', async () => (await client.models({ name: 'late' })).total === 1)
    const first = await put({ tags: ['late'] }, 'late')
    if (first.status !== 200) expect(first).toMatchObject({ status: 422, json: { code: 'model.unhashed', remedy: /hash/ } })
    const said = await eventually('what was asked for is hashed', async () => {
      const { status, json } = await put({ tags: ['late'] }, 'late')
      return status === 200 && json
    })
    expect(said).toMatchObject({ tags: ['late'] })
    expect((await client.models({ tag: 'late' })).models).toMatchObject([{ id: 'late', kind: 'lora' }])
  })

  it('are held to limits, and refuse what a terminal would act on', async () => {
    const refused: [unknown, RegExp][] = [
      [{ settings: { steps: 201 } }, /settings\.steps/],
      [{ settings: { width: 65 } }, /settings\.width/],
      [{ settings: { sampler: 'nonesuch' } }, /settings\.sampler/],
      [{ settings: { seed: 1 } }, /seed/],
      [{ title: 'red\u001b[31m' }, /title/],
      [{ title: 'x'.repeat(201) }, /title/],
      [{ tags: Array.from({ length: 33 }, String) }, /tags/],
      [{ notes: '\u202eevil' }, /notes/],
      [{ other: 1 }, /other/],
    ]
    for (const [body, field] of refused) {
      const { status, json } = await put(body)
      expect({ status, json: JSON.stringify(json) }, JSON.stringify(body)).toMatchObject({ status: 422, json: field })
    }
    expect(await put({}, 'nonesuch')).toMatchObject({ status: 404 })
  })
})

describe('a pickle that would leave a mark', () => {
  it('is opened by no verb, and told as what it is', async () => {
    for (const model of ['stranger', 'sub/renamed']) {
      const id = encodeURIComponent(model)
      expect((await client.model(model)).reason).toMatchObject({ code: 'pickle' })
      expect(await client.run('model-inspect', { model })).toMatchObject({ state: 'refused', reason: { code: 'pickle' } })
      expect(await client.run('model-validate', { model })).toMatchObject({ isValid: false, findings: [{ code: 'pickle' }] })
      expect(await post(`${id}/components`)).toMatchObject({ json: { code: 'model.unusable' } })
      expect(await post(`${id}/convert`)).toMatchObject({ json: { code: 'model.pickle_refused', remedy: /DARKROOM_PICKLES=convert/ } })
      for (const verb of ['load', 'hash'])
        expect(await post(`${id}/${verb}`)).toMatchObject({ status: 422, json: { code: 'model.unusable' } })
      for (const verb of ['benchmark', 'optimize'])
        expect(await post(`${id}/${verb}`, {})).toMatchObject({ status: 422, json: { code: 'model.unusable' } })
      expect(await client.run('model-unload', { model })).toMatchObject({ unloaded: [] })
      expect(await client.modelStatus(model)).toMatchObject({ status: 'refused', resident: [] } satisfies Partial<ModelStatus>)
      const { stderr, code } = await darkroom('models', 'convert', model)
      expect({ stderr, code }).toMatchObject({ code: 1, stderr: /set DARKROOM_PICKLES=convert/ })
    }
    expect(isMarked(join(farm.folder, 'mark'))).toBe(false)
    expect((await readdir(root)).filter((name) => name.endsWith('.part'))).toEqual([])
  })
})
