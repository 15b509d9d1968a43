/** What each family cannot draw, refused at submit by the field that asks for it; its headers alone say so. */
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { folders, writeFolder, type Folder } from '../support/drawable-folders.ts'
import { eventually } from '../support/wait.ts'
import { startHarness, type Harness } from './harness.ts'

const few = { num_train_timesteps: 50 }
const models: Record<string, Folder> = {
  sd1: { ...folders.sd1, scheduler: few },
  sdxl: folders.sdxl,
  inpainting: folders.inpainting,
  refiner: folders.refiner,
  dev: folders.dev,
  schnell: folders.schnell,
  klein: { ...folders.klein, index: { is_distilled: true } },
  'klein-base': folders.klein,
  'qwen-image': folders.qwenImage,
  kontext: folders.kontext,
  'qwen-edit': folders.qwenEdit,
  sd3: { ...folders.sd3, config: { pos_embed_max_size: 96 } },
  'z-image': { ...folders.zImage, scheduler: { shift: 6, ...few } },
}

let h: Harness
beforeAll(async () => {
  h = await startHarness()
  const [root = ''] = h.config.models
  for (const [name, folder] of Object.entries(models)) writeFolder(join(root, name), folder)
  await eventually('every model is listed and draws', async () => {
    await h.engine.models.refresh()
    const drawing = new Set(h.engine.models.list().flatMap(({ id, entry }) => (entry.drawing ? [id] : [])))
    return Object.keys(models).every((name) => drawing.has(name))
  })
})
afterAll(() => h.stop())

const refusedBy = async (model: string, more: Record<string, unknown>): Promise<Record<string, string>> => {
  const answer = await h.client.post('/v1/sessions', { workflow: 'image-generation', input: { prompt: 'x', model, ...more } })
  expect(answer.status, answer.text).toBe(422)
  expect(answer.json).toMatchObject({ code: 'api.invalid', remedy: expect.any(String) as string })
  const problems = answer.json.problems as { field: string; message: string }[]
  return Object.fromEntries(problems.map(({ field, message }) => [field, message]))
}
const picture = 'a'.repeat(64)
const noPicture = /^must be left out for .*, which draws from text alone$/
const noSampler = (to: string) =>
  new RegExp(`^must be one of Euler, Heun, LCM for .*, which draws by flow matching; the nearest to .* is ${to}$`)
const noSchedule = /^must be Automatic or left out for .*, whose model says how its steps are spread, not Karras$/
const unheard = /^must be left out for .*, which hears no negative prompt; say in `prompt` what to draw instead$/
const multiple = (of: string) => new RegExp(`^must be a multiple of 16 for .* \\(${of}\\), such as 1024, not 1016$`)
const asFlow = { width: 1016, sampler: 'Euler a', schedule: 'Karras' }
const flowRefusals = (of: string) => ({ 'input.width': multiple(of), 'input.sampler': noSampler('Euler'), 'input.schedule': noSchedule })

describe('at submit', () => {
  it.each<[model: string, asked: Record<string, unknown>, refusals: Record<string, RegExp>]>([
    [
      'sd1',
      { steps: 51 },
      { 'input.steps': /^must be at most 50 for sd1 \(Stable Diffusion 1\), which was trained with so many, not 51$/ },
    ],
    ['sd1', { width: 516 }, { 'input.width': /multiple of 8/ }],
    ['sd1', { sizes: { cropLeft: 1 } }, { 'input.sizes': /^model sd1 is told no sizes/ }],
    ['sdxl', { sampler: 'DDIM', schedule: 'Karras' }, { 'input.schedule': /the nearest that takes Karras is Euler$/ }],
    ['inpainting', {}, { 'input.mask': /^is missing: model inpainting draws behind masks alone/ }],
    ['refiner', {}, { 'input.picture': /^is missing: model refiner draws over pictures alone/ }],
    ['refiner', { picture, sizes: { targetWidth: 64 } }, { 'input.sizes.targetWidth': /^a refiner such as refiner is not told/ }],
    ['dev', { ...asFlow, negativePrompt: 'blur' }, { ...flowRefusals('FLUX\\.1'), 'input.negativePrompt': unheard }],
    ['dev', { picture }, { 'input.picture': noPicture }],
    [
      'schnell',
      { ...asFlow, guidance: 3.5, negativePrompt: 'blur' },
      {
        ...flowRefusals('FLUX\\.1'),
        'input.guidance': /^must be 1 or left out for schnell \(FLUX\.1\), which has no guidance, not 3\.5$/,
        'input.negativePrompt': unheard,
      },
    ],
    [
      'klein',
      { ...asFlow, guidance: 4, negativePrompt: 'blur' },
      { ...flowRefusals('FLUX\\.2'), 'input.guidance': /which has no guidance, not 4$/, 'input.negativePrompt': unheard },
    ],
    ['klein-base', { references: Array(5).fill(picture) }, { 'input.references': /^must be at most 4$/ }],
    ['kontext', { references: [picture, picture] }, { 'input.references': /^must be at most 1 for kontext, not 2$/ }],
    ['kontext', { picture }, { 'input.picture': noPicture }],
    ['dev', { references: [picture] }, { 'input.references': /^must be left out for dev, which sees no pictures: FLUX\.1 Kontext, / }],
    ['sdxl', { references: [picture] }, { 'input.references': /^must be left out for sdxl/ }],
    ['qwen-edit', {}, { 'input.references': /^is missing: model qwen-edit edits pictures; send the ids of one or more$/ }],
    ['klein-base', asFlow, flowRefusals('FLUX\\.2')],
    ['klein-base', { picture }, { 'input.picture': noPicture }],
    ['qwen-image', asFlow, flowRefusals('Qwen-Image')],
    ['qwen-image', { picture }, { 'input.picture': noPicture }],
    ['sd3', asFlow, flowRefusals('Stable Diffusion 3')],
    [
      'sd3',
      { width: 1552, height: 64 },
      { 'input.width': /^must be at most 1536 for sd3 \(Stable Diffusion 3\), which has learnt so many places, not 1552$/ },
    ],
    ['sd3', { picture }, { 'input.picture': noPicture }],
    ['z-image', { ...asFlow, steps: 60 }, { ...flowRefusals('Z-Image'), 'input.steps': /^must be at most 50 for z-image \(Z-Image\)/ }],
    ['z-image', { picture }, { 'input.picture': noPicture }],
  ])('%s refuses %o', async (model, asked, refusals) => {
    const refused = await refusedBy(model, asked)
    expect(Object.keys(refused).toSorted()).toEqual(Object.keys(refusals).toSorted())
    for (const [field, words] of Object.entries(refusals)) expect(refused[field]).toMatch(words)
  })

  it.each([
    ['sd1', { steps: 50, negativePrompt: 'blur' }],
    ['sdxl', { sizes: { cropLeft: 8 } }],
    ['dev', { guidance: 3.5, sampler: 'Heun' }],
    ['schnell', { guidance: 1, width: 1024 }],
    ['kontext', { guidance: 2.5 }],
    ['klein-base', { guidance: 4, negativePrompt: 'blur' }],
    ['qwen-image', { negativePrompt: 'blur' }],
    ['sd3', { width: 1536, height: 64 }],
    ['z-image', { steps: 50, negativePrompt: 'blur', sampler: 'LCM' }],
  ])('%s takes %o', async (model, asked) => {
    const answer = await h.client.post('/v1/sessions', { workflow: 'image-generation', input: { prompt: 'x', model, ...asked } })
    expect(answer.status, answer.text).toBe(202)
    await h.engine.control(answer.json.id as string, 'cancel')
  })
})
