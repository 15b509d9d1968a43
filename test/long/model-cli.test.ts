/** `darkroom models`, as processes on a farm with the fake child. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DarkroomClient, type Model } from '../../src/client/index.ts'
import { run } from '../support/command.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { safetensors, writeImage } from '../support/headers.ts'
import { writeMarking } from '../support/pickles.ts'
import { eventually } from '../support/wait.ts'

let farm: Farm
beforeAll(async () => {
  farm = await startFarm({ apis: 0, workers: 0 })
  const root = join(farm.folder, 'models')
  const { head, body } = safetensors({ 'lora_unet_a.lora_down.weight': ['F16', [4, 32]], 'lora_unet_a.lora_up.weight': ['F16', [32, 4]] })
  writeImage(join(root, 'cut.safetensors'), { head, body: body - 100 })
  await writeFile(join(root, 'sound.safetensors'), Buffer.concat([head, Buffer.alloc(body)]))
  writeMarking(join(root, 'stranger.ckpt'), join(farm.folder, 'mark'))
  writeMarking(join(root, 'renamed.safetensors'), join(farm.folder, 'mark'))
  await farm.addApi()
  await farm.addWorker()
  const client = new DarkroomClient({ url: farm.client.url })
  await eventually('the models are listed', async () => (await client.models()).models.length >= 5)
})
afterAll(() => farm[Symbol.asyncDispose]())

const darkroom = (...args: string[]) => run(args, { DARKROOM_URL: farm.client.url })

describe('the command line', () => {
  it('lists, searches and shows', async () => {
    const list = await darkroom('models', 'list', '--status', 'refused')
    expect(list.stdout).toMatch(/^MODEL/)
    expect(list.stdout.split('\n').filter((line) => /pickle/.test(line))).toHaveLength(2)
    const { models } = JSON.parse((await darkroom('models', 'search', 'sound', '--json')).stdout) as { models: Model[] }
    expect(models.map(({ id }) => id)).toEqual(['sound'])
    expect((await darkroom('models', 'components', 'darkroom-tiny')).stdout).toMatch(/unet .*fp32/)
    expect((await darkroom('models', 'inspect', 'cut')).stdout).toMatch(/state +broken/)
    expect((await darkroom('models', 'status', 'darkroom-tiny')).stdout).toMatch(/on disk +\//)
    expect((await darkroom('models', 'hash', 'darkroom-tiny')).stdout).toMatch(/^[0-9a-f]{64} {2}darkroom-tiny\n$/)
  })

  it('explains a refusal with its remedy', async () => {
    const { code, stderr } = await darkroom('models', 'validate', 'nonesuch')
    expect({ code, stderr }).toMatchObject({ code: 1, stderr: /there is no model "nonesuch"[^]*darkroom models WORDS[^]*\(model\.unknown/ })
    expect((await darkroom('models', 'benchmark', 'darkroom-tiny', '--calls', '1')).code).toBe(2)
  })

  it('shows a model, whatever it is', async () => {
    const { stdout } = await darkroom('models', 'show', 'darkroom-tiny')
    expect(stdout).toMatch(/^model +darkroom-tiny\n/)
    for (const line of [/^status +usable$/m, /^parts +.*unet fp32/m, /^lies in +\/.*, for /m, /^draws on +\S+: .*at most .*\(estimate\)/m])
      expect(stdout).toMatch(line)
    const broken = await darkroom('models', 'show', 'cut')
    expect(broken.stdout).toMatch(/^status +broken$[^]*^what to do +Finish the download/m)
    const shown = JSON.parse((await darkroom('models', 'show', 'darkroom-tiny', '--json')).stdout) as Model & { compatible: object[] }
    expect(shown).toMatchObject({ id: 'darkroom-tiny', compatible: [{ fits: true }] })
    expect(await darkroom('models', 'show', 'nonesuch')).toMatchObject({ code: 1, stderr: /there is no model "nonesuch"/ })
  })

  it('caches a model in RAM, and lets go of it', async () => {
    expect(await darkroom('models', 'cache', 'darkroom-tiny')).toMatchObject({
      code: 0,
      stdout: /^cached darkroom-tiny, .*, in the RAM of \S+’s worker/,
    })
    expect((await darkroom('models', 'status', 'darkroom-tiny')).stdout).toMatch(/^in RAM +of the worker of /m)
    const device = /of the worker of (\S+),/.exec((await darkroom('models', 'status', 'darkroom-tiny')).stdout)?.[1] ?? ''
    expect((await darkroom('models', 'evict', 'darkroom-tiny', '--device', device)).stdout).toMatch(/^evicted darkroom-tiny, .*, from /)
    expect((await darkroom('models', 'evict', 'darkroom-tiny')).stdout).toMatch(/^darkroom-tiny was not cached on /)
    const json = JSON.parse((await darkroom('models', 'cache', 'darkroom-tiny', '--json')).stdout) as object
    expect(json).toMatchObject({ id: 'darkroom-tiny', device, uses: 0 })
  })

  it('loads a model onto a device, and unloads it', async () => {
    expect(await darkroom('models', 'load', 'darkroom-tiny')).toMatchObject({ code: 0, stdout: /^loaded darkroom-tiny, .* in / })
    await eventually('it is told', async () => /^resident +\S+,/m.test((await darkroom('models', 'status', 'darkroom-tiny')).stdout))
    expect((await darkroom('models', 'load', 'darkroom-tiny')).stdout).toMatch(/^darkroom-tiny was resident, /)
    expect((await darkroom('models', 'unload', 'darkroom-tiny')).stdout).toMatch(/^unloaded darkroom-tiny, .*, from /)
    expect((await darkroom('models', 'unload', 'darkroom-tiny')).stdout).toMatch(/^darkroom-tiny was not resident on /)
  })

  it('names a device that is not there, and what each verb lacks', async () => {
    for (const verb of ['cache', 'evict', 'load', 'unload']) {
      expect(await darkroom('models', verb, 'darkroom-tiny', '--device', 'nowhere'), verb).toMatchObject({
        code: 1,
        stderr: /nowhere[^]*\(device\.unknown/,
      })
      expect(await darkroom('models', verb), verb).toMatchObject({ code: 2, stderr: /missing required argument 'model'/ })
    }
  })
})
