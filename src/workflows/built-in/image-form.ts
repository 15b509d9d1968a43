/** What clients may send of an image generation, and what the model fills in. */
import { z } from 'zod'
import { maxSeed, ModelName, Seed, Sizes } from '../../domains/values.ts'
import { fieldProblems, invalidFields } from '../../errors.ts'
import type { Model } from '../../models/entry.ts'
import { SamplerForm, ScheduleForm, withPair } from '../sampler-form.ts'
import { adapterFields } from './adapter-input.ts'
import { controlFields } from './control-input.ts'
import { detailFields } from './detail-input.ts'
import { maxPixels, Prompt, side } from './form-values.ts'
import { fastFields } from './fast-input.ts'
import { hiresFields } from './hires-input.ts'
import { memoryFields } from './memory-input.ts'
import { pictureFields } from './picture-input.ts'
import { postprocessFields } from './postprocess-input.ts'
import { promptFields } from './prompt-input.ts'
import { referenceFields } from './reference-input.ts'
import { safetyFields } from './safety-input.ts'

/** Fields that are completed where they are declared. */
export const completedFields = {
  ...promptFields,
  ...pictureFields,
  ...hiresFields,
  ...detailFields,
  ...controlFields,
  ...referenceFields,
  ...adapterFields,
  ...memoryFields,
  ...fastFields,
  ...postprocessFields,
  ...safetyFields,
}

/** What a client may send; what it leaves out the model's recommended settings fill in, the seed is drawn. */
export const Input = z
  .strictObject({
    model: ModelName.default('darkroom-tiny'),
    prompt: Prompt.describe('what to draw'),
    negativePrompt: Prompt.default('').describe('what not to draw'),
    width: side.optional().describe('pixels, a multiple of 8; default: the model’s own size'),
    height: side.optional().describe('pixels, a multiple of 8; default: the model’s own size'),
    steps: z.int().min(1).max(200).optional().describe('denoise steps'),
    guidance: z.number().min(0).max(50).optional().describe('classifier-free guidance scale; 1 turns it off'),
    seed: Seed.optional().describe(
      'seed of the first image; image i has seed + i; drawn when left out. PyTorch starts from its low 32 bits',
    ),
    sampler: SamplerForm.optional(),
    schedule: ScheduleForm.optional(),
    sizes: Sizes.optional().describe('what Stable Diffusion XL is told of the picture’s sizes; default: the size that is drawn'),
    ...completedFields,
    count: z.int().min(1).max(64).default(1).describe('how many images'),
    pin: z.enum(['class', 'strict']).default('class').describe('strict: never begin again on another hardware class'),
  })
  .refine(({ width = 64, height = 64 }) => width * height <= maxPixels, {
    path: ['width'],
    message: `width · height must be at most ${maxPixels} pixels`,
  })
  .refine(({ seed = 0, count, variation }) => (variation?.strength ?? 0) > 0 || seed <= maxSeed - (count - 1), {
    path: ['seed'],
    message: `the last image would have a seed beyond 2^53 - 1, which is ${maxSeed}`,
  })
  .transform(withPair)

/**
 * A form with the model's own settings for what it leaves out; `own` are those.
 * @throws DarkroomError `api.invalid` where the two together are beyond the limits
 */
export function wholeForm(given: z.output<typeof Input>, model: Pick<Model, 'id' | 'recommended'>) {
  const { width, height, steps: calls, guidance, sampler } = model.recommended
  const own = { width, height, steps: calls, guidance, sampler }
  const said = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  const ownOf = (field: string): string => {
    const name = field.slice('input.'.length)
    const isSetting = (key: string): key is keyof typeof own => key in own
    return isSetting(name) ? `the own setting of model ${model.id} is ${own[name]}` : `the own sampler of model ${model.id} is ${sampler}`
  }
  const whole = Input.safeParse({ ...own, ...said })
  if (!whole.success) {
    // What the client sent is within the limits: these are the model's.
    const problems = fieldProblems(whole.error.issues, 'input', 'input.').map(({ field, message }) => ({
      field,
      message: `${message}, and ${ownOf(field)}: say one`,
    }))
    throw invalidFields(problems)
  }
  return { whole: whole.data, own }
}
