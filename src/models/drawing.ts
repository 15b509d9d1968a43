/** Whether pictures can be drawn with a model, and with which settings when a request leaves them out. */
import { join } from 'node:path'
import { z } from 'zod'
import { drawnBy, families, familyNames, type Family } from './families.ts'
import { readSmall } from './read-small.ts'
import type { Variant, Verdict } from './verdict.ts'

/** What the inference domain needs to know of a model. */
export interface Drawing {
  family: Family
  /** Pixels of one latent cell's side. */
  scale: number
  /** Settings it draws well with, for requests that leave them out. */
  recommended: { width: number; height: number; steps: number; guidance: number; sampler: string }
  /** Words it was trained on, where its manifest lists them. */
  vocabulary: Record<string, string[]>
}

/** A model that draws, or why it does not, in words; notes say which of its own settings are not used. */
export type Drawable = ({ drawing: Drawing; obstacle: null } | { drawing: null; obstacle: string }) & { notes: string[] }

/** Variants that need a picture, a mask or a first model beside the prompt, which a request cannot bring yet. */
const needMore: readonly Variant[] = ['inpainting', 'instruct', 'edit', 'fill', 'control', 'redux', 'refiner', 'upscaling']

const Side = z.int().min(1)
const Recommended = { width: Side, height: Side, steps: z.int().min(1), guidance: z.number(), sampler: z.string() }
const Vocabulary = z.record(z.string(), z.array(z.string()))
const Vae = z.looseObject({ block_out_channels: z.array(z.int().min(1)).min(1).max(12) })
/** diffusers allows both; without it the pipeline's own default of 64 cells counts. */
const Unet = z.looseObject({ sample_size: z.union([Side, z.tuple([Side, Side])]).nullish() })

const cannot = (obstacle: string): Drawable => ({ drawing: null, obstacle, notes: [] })

/**
 * Reads the configurations of a pipeline's folder. Whatever is missing in them or of another type is an obstacle, or a
 * note where the model draws without it.
 */
export async function readDrawing(path: string, verdict: Verdict): Promise<Drawable> {
  const notes: string[] = []
  const manifest = await readManifest(path, verdict, notes)
  const family =
    manifest['family'] === undefined ? verdict.family && drawnBy[verdict.family] : families.find((name) => name === manifest['family'])
  const obstacle = family ? obstacleOf(verdict, manifest['family'] !== undefined) : unknownFamily(verdict, manifest['family'])
  if (obstacle !== undefined || !family) return cannot(obstacle ?? '')
  const [unet, vae] = await Promise.all([readConfig(join(path, 'unet/config.json'), Unet), readConfig(join(path, 'vae/config.json'), Vae)])
  if ('problem' in unet) return cannot(`unet/config.json ${unet.problem}`)
  if ('problem' in vae) return cannot(`vae/config.json ${vae.problem}`)
  const scale = 2 ** (vae.value.block_out_channels.length - 1)
  const size = unet.value.sample_size ?? 64
  const [rows, columns] = typeof size === 'number' ? [size, size] : size
  const recommended = {
    width: columns * scale,
    height: rows * scale,
    steps: 20,
    guidance: rows * scale <= 128 ? 3 : 7,
    sampler: 'DDIM',
    ...recommendedBy(manifest, notes),
  }
  const vocabulary = Vocabulary.safeParse(manifest['vocabulary'] ?? {})
  if (!vocabulary.success) notes.push('manifest.json: `vocabulary` is not used: it must be lists of words by kind')
  return { drawing: { family, scale, recommended, vocabulary: vocabulary.data ?? {} }, obstacle: null, notes }
}

/** What keeps a model that was understood from drawing. */
function obstacleOf(verdict: Verdict, isDeclared: boolean): string | undefined {
  const { kind, format, variants } = verdict
  if (kind !== 'checkpoint' && !isDeclared) return `it is ${kindNames[kind]}, which does not draw by itself`
  if (format !== 'diffusers') return `it is one ${format} file; Darkroom draws with diffusers folders so far`
  const lacking = verdict.lacks.map(({ name, encoder }) => (encoder ? `${name} (${encoder})` : name))
  if (lacking.length > 0) return `it lacks ${lacking.join(' and ')}`
  const more = variants.find((variant) => needMore.includes(variant))
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
  unknown: 'nothing that Darkroom knows',
}

async function readManifest(path: string, verdict: Verdict, notes: string[]): Promise<Record<string, unknown>> {
  if (verdict.format !== 'diffusers') return {}
  const text = await readSmall(join(path, 'manifest.json')).catch((error: NodeJS.ErrnoException) => {
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
