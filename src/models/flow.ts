/**
 * Families with flow matching: which settings suit one of their models, and what a request cannot ask of it. Models of
 * one family have the same tensors, so that a distilled one is told from its base by its configurations or its name.
 */
import { basename } from 'node:path'
import { z } from 'zod'
import { flowSamplers, type Family } from './families.ts'
import { readSmall } from './read-small.ts'
import type { Variant } from './verdict.ts'

/** What a model cannot do that a request may say; what is left out has no limit but the request's own. */
export interface Limits {
  /** Both sides of a picture are a multiple of so many pixels, and at most so long. */
  multiple?: number
  side?: number
  /** Denoise steps: as many as it was trained with. */
  steps?: number
  samplers?: readonly string[]
  /** `free`: classifier-free, against a negative prompt. `input`: the network takes it. `none`: it has none. */
  guidance?: 'free' | 'input' | 'none'
  /** How many pictures it is shown beside a prompt, at most; absent where that is none. */
  references?: number
  /** It begins from no picture. */
  fromText?: true
}

interface Settings {
  steps: number
  guidance: number
}

/** Pixels of a latent cell's side, and of a token's, which is 2 × 2 cells, in all of these families. */
export const flowScale = 8
const multiple = 2 * flowScale

/** What the configurations of a folder say; whatever they lack or have of another type counts as not said. */
interface Said {
  /** Whether the transformer takes guidance as an input. */
  isGuided: boolean | undefined
  isDistilled: boolean | undefined
  shift: number | undefined
  isTurbo: boolean
  /** The class of its pipeline. */
  pipeline: string
  variants: readonly Variant[]
}

type FlowFamily = 'flux1' | 'flux2' | 'qwen-image' | 'sd3' | 'z-image'

interface Row {
  guidance: NonNullable<Limits['guidance']>
  settings: Partial<Settings>
  /** As `Limits`; Python's families say the same as `sees`. */
  references?: number
  /** It draws nothing without one. */
  isEdit?: boolean
}

const rows: Record<FlowFamily, (said: Said) => Row> = {
  flux1: ({ isGuided, variants }) => ({
    ...((isGuided ?? !variants.includes('unguided'))
      ? { guidance: 'input', settings: variants.includes('edit') ? { guidance: 2.5 } : {} }
      : { guidance: 'none', settings: { steps: 4, guidance: 1 } }),
    ...(variants.includes('edit') && { references: 1 }),
  }),
  flux2: ({ isDistilled }) => ({
    ...(isDistilled ? { guidance: 'none', settings: { steps: 4, guidance: 1 } } : { guidance: 'free', settings: {} }),
    references: 4,
  }),
  'qwen-image': ({ pipeline }) => ({
    guidance: 'free',
    settings: {},
    ...(pipeline === 'QwenImageEditPipeline' && { references: 1, isEdit: true }),
    ...(pipeline === 'QwenImageEditPlusPipeline' && { references: 3, isEdit: true }),
  }),
  sd3: ({ isTurbo, variants }) => ({
    guidance: 'free',
    settings: isTurbo ? { steps: 4, guidance: 1 } : variants.includes('3.5') ? {} : { guidance: 7 },
  }),
  // The Turbo's schedule is published with shift 3, the base's with 6.
  'z-image': ({ isTurbo, shift }) => ({
    guidance: 'free',
    settings: isTurbo || (shift !== undefined && shift <= 3) ? { steps: 9, guidance: 1 } : {},
  }),
}

export const isFlow = (family: Family): family is FlowFamily => Object.hasOwn(rows, family)

/** `path`: of the model; `at`: where a file of its pipeline's folder lies. */
export async function readFlow(path: string, at: (file: string) => string, family: FlowFamily, variants: readonly Variant[]) {
  const [transformer, index, scheduler] = await Promise.all(
    ['transformer/config.json', 'model_index.json', 'scheduler/scheduler_config.json'].map((name) => read(at(name))),
  )
  const said = {
    isGuided: as(z.boolean(), transformer?.['guidance_embeds']),
    isDistilled: as(z.boolean(), index?.['is_distilled']),
    shift: as(z.number(), scheduler?.['shift']),
    isTurbo: /turbo/i.test(basename(path)),
    pipeline: as(z.string(), index?.['_class_name']) ?? '',
    variants,
  }
  const { guidance, settings, references, isEdit = false } = rows[family](said)
  // Of SD3: places that it has learnt, of a token each.
  const places = as(Positive, transformer?.['pos_embed_max_size'])
  const steps = as(Positive, scheduler?.['num_train_timesteps'])
  const limits: Limits = {
    multiple,
    ...(places !== undefined && { side: places * multiple }),
    ...(steps !== undefined && { steps }),
    samplers: flowSamplers,
    guidance,
    ...(references !== undefined && { references }),
    fromText: true,
  }
  return { limits, settings, isEdit }
}

const Positive = z.int().min(1)
const as = <T>(schema: z.ZodType<T>, value: unknown): T | undefined => schema.safeParse(value).data

async function read(path: string): Promise<Record<string, unknown> | undefined> {
  try {
    return as(z.record(z.string(), z.unknown()), JSON.parse((await readSmall(path)).toString('utf8')))
  } catch {
    // What is broken is told when the model is loaded, with the field.
    return undefined
  }
}
