/** Whether pictures can be drawn with a model, and with which settings when a request leaves them out. */
import { join } from 'node:path'
import { z } from 'zod'
import { drawnBy, families, familyNames, usual, type Family } from './families.ts'
import { flowScale, isFlow, readFlow, type Limits } from './flow.ts'
import { readSmall } from './read-small.ts'
import type { KnownFamily, Variant, Verdict } from './verdict.ts'

/** What the inference domain needs to know of a model. */
export interface Drawing {
  family: Family
  /** Pixels of one latent cell's side. */
  scale: number
  /** What a request must bring beside its prompt; absent where that is nothing. A mask comes with its picture. */
  needs?: 'picture' | 'mask' | 'references'
  /** Settings it draws well with, for requests that leave them out. */
  recommended: { width: number; height: number; steps: number; guidance: number; sampler: string }
  /** Words it was trained on, where its manifest lists them. */
  vocabulary: Record<string, string[]>
  /** What a request cannot ask of it; absent where it may say all that a request knows. */
  limits?: Limits
}

/** A model that draws, or why it does not, in words; notes say which of its own settings are not used. */
export type Drawable = ({ drawing: Drawing; obstacle: null } | { drawing: null; obstacle: string }) & { notes: string[] }

/** What a request must bring for a model of a variant. */
const needs: readonly [Variant, Drawing['needs']][] = [
  ['inpainting', 'mask'],
  ['refiner', 'picture'],
]

/** Variants that need more than a request can bring yet, or another noise than the samplers have. */
const needMore: readonly Variant[] = ['instruct', 'edit', 'fill', 'control', 'redux', 'upscaling', 'edm', 'layered', 'dev']

/** Families whose models for edits draw: they are shown pictures beside the prompt. */
const editing: readonly KnownFamily[] = ['flux1', 'flux2', 'qwen-image']

const Side = z.int().min(1)
/** Latent cells of a side; no network is made for more, and pixels would be no number any more. */
const Cells = Side.max(8192)
const Recommended = { width: Side, height: Side, steps: z.int().min(1), guidance: z.number(), sampler: z.string() }
const Vocabulary = z.record(z.string(), z.array(z.string()))
const Vae = z.looseObject({ block_out_channels: z.array(z.int().min(1)).min(1).max(12) })
/** diffusers allows both; without it what is usual for the family counts. */
const Scheduler = z.looseObject({ num_train_timesteps: z.int().min(1) })
const Unet = z.looseObject({ sample_size: z.union([Cells, z.tuple([Cells, Cells])]).nullish() })

/** By which class a model is drawn, as far as its headers say; undefined where that is none. */
export const drawnFamily = ({ family, variants }: Verdict): Family | undefined =>
  family === 'sdxl' && variants.includes('refiner') ? 'sdxl-refiner' : family && drawnBy[family]

const cannot = (obstacle: string): Drawable => ({ drawing: null, obstacle, notes: [] })

/**
 * Reads the configurations of a model. Whatever is missing in them or of another type is an obstacle, or a note where
 * the model draws without it. `made`: where a file of a pipeline's folder lies for a model that is made of files.
 */
export async function readDrawing(path: string, verdict: Verdict, made?: (file: string) => string): Promise<Drawable> {
  const notes: string[] = []
  const at = made ?? ((file: string) => join(path, file))
  const manifest = made || verdict.format === 'diffusers' ? await readManifest(at('manifest.json'), notes) : {}
  const family = manifest['family'] === undefined ? drawnFamily(verdict) : families.find((name) => name === manifest['family'])
  const obstacle = family
    ? obstacleOf(verdict, manifest['family'] !== undefined, made !== undefined)
    : unknownFamily(verdict, manifest['family'])
  if (obstacle !== undefined || !family) return cannot(obstacle ?? '')
  const vocabulary = Vocabulary.safeParse(manifest['vocabulary'] ?? {})
  if (!vocabulary.success) notes.push('manifest.json: `vocabulary` is not used: it must be lists of words by kind')
  const said = { recommended: recommendedBy(manifest, notes), vocabulary: vocabulary.data ?? {} }
  if (isFlow(family)) {
    const drawing = await flowDrawing(path, at, family, verdict, said)
    // Its configurations are another model's: it would draw as that one.
    const isUntold = family === 'qwen-image' && verdict.variants.includes('edit') && !drawing.needs
    return isUntold
      ? cannot('it edits pictures, and its model_index.json is none of a pipeline for edits')
      : { drawing, obstacle: null, notes }
  }
  const [unet, vae, scheduler] = await Promise.all([
    readConfig(at('unet/config.json'), Unet),
    readConfig(at('vae/config.json'), Vae),
    readConfig(at('scheduler/scheduler_config.json'), Scheduler),
  ])
  if ('problem' in unet) return cannot(`unet/config.json ${unet.problem}`)
  if ('problem' in vae) return cannot(`vae/config.json ${vae.problem}`)
  const scale = 2 ** (vae.value.block_out_channels.length - 1)
  const { cells, ...settings } = usual[family]
  const size = unet.value.sample_size ?? cells
  const [rows, columns] = typeof size === 'number' ? [size, size] : size
  const recommended = {
    width: columns * scale,
    height: rows * scale,
    ...settings,
    // Models of so small pictures have little to be guided to.
    ...(rows * scale <= 128 && { guidance: 3 }),
    ...said.recommended,
  }
  const [, needed] = needs.find(([variant]) => verdict.variants.includes(variant)) ?? []
  // A broken schedule is told when the model is loaded, with the field.
  const limits = 'value' in scheduler && { limits: { steps: scheduler.value.num_train_timesteps } }
  const drawing = { family, scale, ...(needed && { needs: needed }), recommended, vocabulary: said.vocabulary, ...limits }
  return { drawing, obstacle: null, notes }
}

/** Of a family with flow matching; `at`: where a file of its pipeline's folder lies; `said`: by its manifest. */
async function flowDrawing(
  path: string,
  at: (file: string) => string,
  family: Parameters<typeof readFlow>[2],
  { variants }: Verdict,
  said: { recommended: Partial<Drawing['recommended']>; vocabulary: Drawing['vocabulary'] },
): Promise<Drawing> {
  const { limits, settings, isEdit } = await readFlow(path, at, family, variants)
  const { cells, ...others } = usual[family]
  const side = cells * flowScale
  const recommended = { width: side, height: side, ...others, ...settings, ...said.recommended }
  return { family, scale: flowScale, ...(isEdit && { needs: 'references' }), recommended, vocabulary: said.vocabulary, limits }
}

/** What keeps a model that was understood from drawing. */
function obstacleOf(verdict: Verdict, isDeclared: boolean, isMade = false): string | undefined {
  const { kind, format } = verdict
  const isFile = kind === 'diffusion-model' && (format === 'safetensors' || format === 'gguf')
  if (kind !== 'checkpoint' && !isFile && !isDeclared) return `it is ${kindNames[kind]}, which does not draw by itself`
  const more = asksMore(verdict)
  if (more !== undefined || isMade) return more
  if (format !== 'diffusers') return `it is one ${format} file; Darkroom draws with diffusers folders, safetensors and GGUF files`
  const lacking = verdict.lacks.map(({ name, encoder }) => (encoder ? `${name} (${encoder})` : name))
  return lacking.length > 0 ? `it lacks ${lacking.join(' and ')}` : undefined
}

/** Why a model cannot draw of a prompt alone. */
export function asksMore({ family, variants }: Verdict): string | undefined {
  const more = variants.find((variant) => needMore.includes(variant) && !(variant === 'edit' && family && editing.includes(family)))
  return more && `it is a model for ${more}, which Darkroom does not draw with yet`
}

function unknownFamily(verdict: Verdict, declared: unknown): string {
  const drawn = Object.keys(drawnBy).map((name) => familyNames[name as keyof typeof drawnBy])
  const draws = `Darkroom draws with ${drawn.join(' and ')} so far`
  if (declared !== undefined) return `its manifest.json names the family ${JSON.stringify(declared).slice(0, 80)}; ${draws}`
  if (verdict.kind !== 'checkpoint' && verdict.kind !== 'diffusion-model') return obstacleOf(verdict, false) ?? draws
  return verdict.family ? `it is a model of ${familyNames[verdict.family]}; ${draws}` : `its family is not known; ${draws}`
}

/** Kinds in words. */
export const kindNames: Record<Verdict['kind'], string> = {
  checkpoint: 'a checkpoint',
  'diffusion-model': 'a diffusion model without its text encoder and VAE',
  'text-encoder': 'a text encoder',
  'clip-vision': 'a CLIP vision model',
  lora: 'a LoRA',
  vae: 'a VAE',
  controlnet: 'a ControlNet',
  't2i-adapter': 'a T2I-Adapter',
  'ip-adapter': 'an IP-Adapter',
  upscaler: 'an upscaler',
  embedding: 'an embedding',
  classifier: 'a classifier',
  'face-detector': 'a detector of faces',
  'face-restorer': 'a restorer of faces',
  preprocessor: 'a preprocessor',
  unknown: 'nothing that Darkroom knows',
}

async function readManifest(path: string, notes: string[]): Promise<Record<string, unknown>> {
  const text = await readSmall(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') notes.push(`manifest.json is not used: ${error.message}`)
  })
  if (!text) return {}
  try {
    const parsed = z.record(z.string(), z.unknown()).safeParse(JSON.parse(text.toString('utf8')))
    if (parsed.success) return parsed.data
    notes.push('manifest.json is not used: it is no object')
  } catch (error) {
    notes.push(`manifest.json is not used: it is no JSON, ${(error as Error).message}`)
  }
  return {}
}

/** What the manifest recommends, field by field: one of another type concerns no other. */
function recommendedBy({ recommended }: Record<string, unknown>, notes: string[]): Partial<Drawing['recommended']> {
  if (recommended === undefined || recommended === null) return {}
  if (typeof recommended !== 'object') {
    notes.push('manifest.json: `recommended` is not used: it is no object')
    return {}
  }
  const good = Object.entries(Recommended).flatMap(([name, schema]) => {
    const value = (recommended as Record<string, unknown>)[name]
    if (value === undefined) return []
    const parsed = schema.safeParse(value)
    if (!parsed.success)
      notes.push(`manifest.json: \`recommended.${name}\` is not used: ${parsed.error.issues[0]?.message ?? 'it is wrong'}`)
    return parsed.success ? [[name, parsed.data]] : []
  })
  return Object.fromEntries(good) as Partial<Drawing['recommended']>
}

async function readConfig<S extends z.ZodType>(path: string, schema: S): Promise<{ value: z.output<S> } | { problem: string }> {
  try {
    const parsed = schema.safeParse(JSON.parse((await readSmall(path)).toString('utf8')))
    if (parsed.success) return { value: parsed.data }
    const [issue] = parsed.error.issues
    return { problem: `is faulty: ${issue?.path.join('.') ?? ''} ${issue?.message ?? ''}` }
  } catch (error) {
    return { problem: (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'is missing' : `cannot be read: ${(error as Error).message}` }
  }
}
