/** The part of an image generation's form that speaks of ControlNets, and how it is completed. */
import { basename } from 'node:path'
import { z } from 'zod'
import type { Catalogue } from '../../domains/operation.ts'
import {
  controlModes,
  ControlResize,
  controlTasks,
  fluxTasks,
  maxControls,
  ModelName,
  unetTasks,
  type Control,
  type WantedModel,
  PictureId,
} from '../../domains/values.ts'
import { invalidFields, type FieldProblem } from '../../errors.ts'
import type { Model } from '../../models/entry.ts'
import { familyNames, steered, steeredTransformers } from '../../models/families.ts'
import type { Listed } from '../../models/listing.ts'
import type { Verdict } from '../../models/verdict.ts'
import type { UnpinnedPreprocessor } from './pinning.ts'
import { completePreprocessor, PreprocessorInput } from './preprocessor-input.ts'

const Share = z.number().min(0, 'must be at least 0').max(1, 'must be at most 1')

const ControlInput = z
  .strictObject({
    model: ModelName.describe('name of the ControlNet, as GET /v1/models?kind=controlnet lists it'),
    picture: PictureId.optional().describe('id of the picture that it is shown; `pose` needs none'),
    preprocessor: PreprocessorInput.optional().describe('what is made of the picture before; default: it is shown as it is'),
    resize: ControlResize.optional().describe('how the picture comes to width · height; default: crop'),
    weight: z.number().min(0, 'must be at least 0').max(2, 'must be at most 2').default(1),
    start: Share.default(0).describe('share of the steps after which it acts'),
    end: Share.default(1).describe('share of the steps until which it acts'),
    mode: z.enum(controlModes).default('balanced').describe('which of prompt and ControlNet counts more'),
    task: z.enum(controlTasks).optional().describe('what a ControlNet that knows several is shown'),
  })
  .refine(({ start, end }) => start < end, { path: ['start'], message: 'must be less than `end`: it would never act' })

/** What a form of a workflow that draws may say of ControlNets. */
export const controlFields = {
  control: ControlInput.array()
    .min(1, 'must name a ControlNet, or be left out')
    .max(maxControls, `must be at most ${maxControls}`)
    .optional()
    .describe('ControlNets, which steer what is drawn by a picture; several act together'),
}

/** As `Control`, of a model whose hash may not be known yet. */
type WantedControl = Omit<Control, 'model' | 'preprocessor'> & {
  model: Pick<WantedModel, 'id' | 'bodyHash'>
  preprocessor?: UnpinnedPreprocessor
}

/**
 * What is said of ControlNets, with everything filled in; nothing where there is none.
 * @throws DarkroomError `api.invalid`, `artifact.unknown`, `model.unknown`, `model.unusable`
 */
export async function completeControl(
  { control, references }: z.output<z.ZodObject<typeof controlFields>> & { references?: unknown },
  model: Pick<Model, 'id' | 'family'>,
  catalogue: Pick<Catalogue, 'all' | 'named' | 'ofKind' | 'picture'>,
): Promise<{ control?: WantedControl[] }> {
  if (!control) return {}
  const { verdict } = (await catalogue.named(model.id, 'drawing')).entry
  // One that only its manifest tells of is drawn as the first that its class draws.
  const family = verdict.family ?? steered.find((name) => name === model.family)
  if (!family || !steered.includes(family)) throw invalidFields([{ field: 'input.control', message: notSteered(model.id, family) }])
  if (references !== undefined)
    throw invalidFields([{ field: 'input.control', message: 'must be left out beside `references`: ControlNets steer no edit' }])
  const problems = control.flatMap((each, n) => contradictions(each, `input.control.${n}`))
  if (problems.length > 0) throw invalidFields(problems)
  const resolved: WantedControl[] = []
  for (const [n, { picture, resize, preprocessor, task, ...acts }] of control.entries()) {
    const field = `input.control.${n}`
    const found = await catalogue.ofKind('controlnet', acts.model, `${field}.model`)
    const problem = unfit(found, { id: model.id, family, contextSize: verdict.figures.contextSize }, { task, mode: acts.mode }, field)
    if (problem) throw invalidFields([problem])
    const { hasAlpha: _, ...pin } = picture === undefined ? { hasAlpha: false } : await catalogue.picture(picture, `${field}.picture`)
    resolved.push({
      ...acts,
      model: { id: found.id, bodyHash: found.bodyHash },
      ...('sha256' in pin && { picture: pin, resize: resize ?? 'crop' }),
      ...(preprocessor && { preprocessor: await completePreprocessor(preprocessor, catalogue, `${field}.preprocessor`) }),
      ...(task && { task }),
    })
  }
  return { control: resolved }
}

const notSteered = (id: string, family: Verdict['family']): string =>
  `must be left out for ${id}${family ? ` (${familyNames[family]})` : ''}: ControlNets steer ${steered.map((name) => familyNames[name]).join(', ')} here so far`

/** What cannot be meant, whatever the models are. */
function contradictions({ picture, resize, preprocessor }: z.output<typeof ControlInput>, field: string): FieldProblem[] {
  const isDrawn = preprocessor?.name === 'pose'
  if (!isDrawn && picture === undefined)
    return [
      {
        field: `${field}.picture`,
        message: 'is missing: send the id of the picture that it is shown, or joints with the preprocessor pose',
      },
    ]
  if (isDrawn && picture !== undefined)
    return [{ field: `${field}.picture`, message: 'must be left out: the preprocessor pose draws its figures from joints alone' }]
  if (isDrawn && resize !== undefined)
    return [{ field: `${field}.resize`, message: 'is said of a picture, and there is none: leave it out' }]
  return []
}

/** Why a model of that name does not steer this one, by the field that says so. */
function unfit(
  { id, entry: { verdict, isFolder, made } }: Listed,
  model: { id: string; family: NonNullable<Verdict['family']>; contextSize: number | undefined },
  { task, mode }: Pick<Control, 'task' | 'mode'>,
  field: string,
): FieldProblem | undefined {
  const { family, figures, variants, dialect, algorithms = [] } = verdict
  const isTransformer = steeredTransformers.includes(model.family)
  const no = (message: string): FieldProblem => ({ field: `${field}.model`, message })
  if (family !== model.family)
    return no(
      `${id} is for ${family ? familyNames[family] : 'a family that is not known'}, and ${model.id} is a model of ${familyNames[model.family]}`,
    )
  if (figures.contextSize !== undefined && model.contextSize !== undefined && figures.contextSize !== model.contextSize)
    return no(`${id} listens to texts of ${figures.contextSize} numbers, and ${model.id} to ${model.contextSize}`)
  if (algorithms.includes('lora'))
    return no(`${id} is a ControlNet as a difference of low rank, which Darkroom does not read yet: take a whole one`)
  if (!isFolder && isTransformer && dialect !== 'diffusers')
    return no(`${id} is one file, which Darkroom does not read as a ControlNet yet: take its folder in diffusers’ layout`)
  if (!isFolder && !made)
    return no(`${id} is one file of no known configuration: put its config.json into ${basename(id)}.configs beside it, or take its folder`)
  if (variants.includes('inpainting')) return no(`${id} is a ControlNet for inpainting, which Darkroom does not steer by yet`)
  if (isTransformer && mode !== 'balanced')
    return { field: `${field}.mode`, message: `must be balanced for ${id}: ControlNets of ${familyNames[model.family]} know one mode` }
  const isUnion = variants.includes('union')
  const known: readonly NonNullable<Control['task']>[] = (isTransformer ? fluxTasks : unetTasks).slice(0, figures.modes)
  if (isUnion && task === undefined)
    return { field: `${field}.task`, message: `is missing: ${id} knows several tasks; say which, of ${known.join(', ')}` }
  if (!isUnion && task !== undefined) return { field: `${field}.task`, message: `must be left out: ${id} knows one task` }
  if (task && !known.includes(task)) return { field: `${field}.task`, message: `must be one of ${known.join(', ')} for ${id}` }
  return undefined
}
