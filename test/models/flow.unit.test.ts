/** Folders of families with flow matching: what is recommended of them, and what a request cannot ask. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { readDrawing } from '../../src/models/drawing.ts'
import { inspectFolder } from '../../src/models/folder.ts'
import { withName } from '../../src/models/named.ts'
import type { Verdict } from '../../src/models/verdict.ts'
import { checkLimits } from '../../src/workflows/built-in/family-limits.ts'
import { folders, writeFolder, type Folder } from '../support/drawable-folders.ts'
import { transformer } from '../support/model-headers.ts'

const base = mkdtempSync(join(tmpdir(), 'darkroom-flow-'))
afterAll(() => rmSync(base, { recursive: true }))

async function drawingOf({ name = 'model', ...content }: Folder & { name?: string }) {
  const folder = join(mkdtempSync(join(base, 'of-')), name)
  writeFolder(folder, content)
  return readDrawing(folder, await inspectFolder(folder))
}

const { dev, klein, kontext, fill, qwenEdit, qwenImage, schnell, sd3, withoutT5, zImage } = folders

describe('a folder', () => {
  it.each<[string, Folder & { name?: string }, string, object, string]>([
    ['Z-Image-Turbo by its schedule', { ...zImage, scheduler: { shift: 3 } }, 'z-image', { width: 1024, steps: 9, guidance: 1 }, 'free'],
    ['Z-Image-Turbo by its name', { ...zImage, name: 'Z-Image-Turbo' }, 'z-image', { steps: 9, guidance: 1 }, 'free'],
    ['Z-Image', { ...zImage, scheduler: { shift: 6 } }, 'z-image', { steps: 50, guidance: 5 }, 'free'],
    ['FLUX.1 dev', dev, 'flux1', { width: 1024, height: 1024, steps: 28, guidance: 3.5, sampler: 'Euler' }, 'input'],
    ['FLUX.1 schnell', schnell, 'flux1', { steps: 4, guidance: 1 }, 'none'],
    ['FLUX.2 klein', { ...klein, index: { is_distilled: true } }, 'flux2', { width: 1024, steps: 4, guidance: 1 }, 'none'],
    ['FLUX.2 klein base', { ...klein, index: { is_distilled: false } }, 'flux2', { steps: 50, guidance: 4 }, 'free'],
    ['FLUX.1 Kontext', { ...kontext, config: { guidance_embeds: true } }, 'flux1', { steps: 28, guidance: 2.5 }, 'input'],
    ['Qwen-Image', qwenImage, 'qwen-image', { width: 1328, height: 1328, steps: 50, guidance: 4 }, 'free'],
    ['SD3', sd3, 'sd3', { width: 1024, steps: 28, guidance: 7 }, 'free'],
    ['SD3.5', { ...sd3, network: transformer.sd3Diffusers(1536, true) }, 'sd3', { steps: 28, guidance: 4.5 }, 'free'],
    [
      'SD3.5 Turbo',
      { ...sd3, name: 'sd3.5-large-turbo', network: transformer.sd3Diffusers(2432) },
      'sd3',
      { steps: 4, guidance: 1 },
      'free',
    ],
  ])('of %s draws with what is usual', async (_, folder, family, recommended, guidance) => {
    expect(await drawingOf(folder)).toMatchObject({
      obstacle: null,
      drawing: { family, scale: 8, recommended, limits: { multiple: 16, samplers: ['Euler', 'Heun', 'LCM'], guidance, fromText: true } },
    })
  })

  it.each<[string, Folder, number | undefined, string | undefined]>([
    ['FLUX.1 dev', dev, undefined, undefined],
    ['FLUX.1 Kontext', kontext, 1, undefined],
    ['FLUX.2 klein', klein, 4, undefined],
    ['Qwen-Image', qwenImage, undefined, undefined],
    ['Qwen-Image-Edit', qwenEdit, 1, 'references'],
    ['Qwen-Image-Edit-2509', { ...qwenEdit, pipeline: 'QwenImageEditPlusPipeline' }, 3, 'references'],
  ])('of %s says how many pictures it sees', async (_, folder, references, needs) => {
    const { drawing } = await drawingOf(folder)
    expect([drawing?.limits?.references, drawing?.needs]).toEqual([references, needs])
  })

  it.each<[string, string, boolean]>([
    ['flux1-kontext-dev-Q4_K_S.gguf', 'flux1', true],
    ['flux1-dev.safetensors', 'flux1', false],
    ['qwen_image_edit_2509_fp8.safetensors', 'qwen-image', true],
    ['sd3-edit.safetensors', 'sd3', false],
  ])('%s is for edits by its name: %s, %s', (name, family, isEdit) => {
    const verdict = { family, kind: 'diffusion-model', variants: [], notes: [] } as unknown as Verdict
    expect(withName(verdict, `/models/${name}`).variants).toEqual(isEdit ? ['edit'] : [])
  })

  it.each<[string, Folder, RegExp]>([
    ['Fill', fill, /^it is a model for fill, which/],
    [
      'Qwen-Image-Edit with the index of Qwen-Image',
      { ...qwenImage, network: { ...qwenImage.network, __index_timestep_zero__: ['F32', [1]] } },
      /^it edits pictures, and its model_index\.json is none of a pipeline for edits$/,
    ],
    ['no T5', withoutT5, /^it lacks text_encoder_2 \(t5-xxl\)/],
  ])('of %s does not draw, and says why', async (_, folder, why) => {
    const { drawing, obstacle } = await drawingOf(folder)
    expect([drawing, obstacle]).toEqual([null, expect.stringMatching(why)])
  })
})

describe('a request', () => {
  const asked = { width: 1024, height: 768, steps: 20, guidance: 1, negativePrompt: '', sampler: 'Euler' } as const
  const limits = (guidance: 'free' | 'input' | 'none') => ({
    multiple: 16,
    samplers: ['Euler', 'Heun', 'LCM'],
    guidance,
    fromText: true as const,
  })
  const refused = (model: Parameters<typeof checkLimits>[0], changes: Partial<Parameters<typeof checkLimits>[1]>): unknown => {
    try {
      checkLimits(model, { ...asked, ...changes })
      return null
    } catch (error) {
      return error
    }
  }

  it('that says more than its model can heed is refused with each field', () => {
    const schnell = { id: 'schnell', family: 'flux1' as const, limits: limits('none') }
    const said = refused(schnell, { width: 1000, guidance: 3.5, negativePrompt: 'blur', sampler: 'Euler a', schedule: 'Karras' })
    expect(said).toMatchObject({ code: 'api.invalid' })
    const text = JSON.stringify(said)
    expect(text).toContain('input.width')
    const { message, details } = said as { message: string; details: unknown }
    const all = `${message} ${JSON.stringify(details)}`
    expect(all).toContain('must be a multiple of 16 for schnell (FLUX.1), such as 1008, not 1000')
    expect(all).toContain(
      'must be one of Euler, Heun, LCM for schnell (FLUX.1), which draws by flow matching; the nearest to Euler a is Euler',
    )
    expect(all).toContain('must be Automatic or left out for schnell (FLUX.1), whose model says how its steps are spread, not Karras')
    expect(all).toContain('must be 1 or left out for schnell (FLUX.1), which has no guidance, not 3.5')
    expect(all).toContain('must be left out for schnell (FLUX.1), which hears no negative prompt')
  })

  it('that its model can heed is taken', () => {
    expect(refused({ id: 'a', family: 'flux1', limits: limits('input') }, { guidance: 3.5 })).toBeNull()
    expect(
      refused({ id: 'a', family: 'z-image', limits: limits('free') }, { guidance: 5, negativePrompt: 'blur', sampler: 'LCM' }),
    ).toBeNull()
    expect(refused({ id: 'a', family: 'sd1' }, { width: 1000, negativePrompt: 'blur', sampler: 'Euler a' })).toBeNull()
  })
})
