/**
 * From a header to a verdict: what the tensors of one file are, by their names and shapes alone. The tables are in
 * `rules/`; here is the order in which they are asked, and what becomes of a file with several parts.
 */
import { quote, type Header } from './header.ts'
import { claimedFamily, metadataOf } from './metadata.ts'
import { encoderName, lacksOf, needsOf } from './needs.ts'
import { unpack, type Unpacked } from './quantisation.ts'
import { controlRows, ipRows, t2iRows } from './rules/adapters.ts'
import { denoisers, denoiserVariants, openQuestions, rootMarks } from './rules/denoisers.ts'
import { classifierRows, textEncoderRows, vaeRows, visionRows } from './rules/encoders.ts'
import { loraOf } from './rules/lora.ts'
import { Part, rowOf, type Row, type Weight } from './rules/match.ts'
import { restorerOf } from './rules/restorers.ts'
import { upscalerOf, upscalerPrefixes } from './rules/upscalers.ts'
import {
  blank,
  failed,
  reasonOf,
  type Component,
  type Figures,
  type Format,
  type KnownFamily,
  type Reason,
  type Variant,
  type Verdict,
} from './verdict.ts'

/** Where the network that draws is kept, as trainers and servers save it. */
const denoiserPrefixes = ['model.diffusion_model.', '', 'diffusion_model.', 'unet.', 'transformer.'] as const
const vaePrefixes = ['first_stage_model.', 'vae.', ''] as const
/** Text encoders: SD1, SD2, SDXL with its refiner, diffusers; `text_encoders.NAME.` is found by looking. */
const encoderPrefixes = [
  'cond_stage_model.transformer.',
  'cond_stage_model.model.',
  'conditioner.embedders.0.transformer.',
  'conditioner.embedders.0.model.',
  'conditioner.embedders.1.model.',
  'text_encoder.',
  'text_encoder_2.',
  'transformer.',
  '',
] as const

/** Sound files that are no models of ours, by a name that only they have. */
const otherKinds: readonly [what: string, name: RegExp][] = [
  ['a motion module of AnimateDiff', /(?:^|\.)motion_modules\.0\./],
  ['a hypernetwork', /^(?:320|640|768|1024|1280)\.\d\.linear(?:\.\d)?\.(?:weight|bias)$/],
  ['a PhotoMaker adapter', /^id_encoder\./],
  ['an InstantID or PuLID adapter', /^(?:pulid_ca|id_adapter)\./],
  ['an audio model', /(?:^|\.)(?:vocoder|audio_vae|genre_embedder)\./],
]

/** The verdict of one file whose header was read. */
export function detect(header: Header, format: Format): Verdict {
  const unpacked = unpack(header, format === 'gguf')
  const found = adapter(unpacked) ?? lora(unpacked) ?? embedding(unpacked) ?? restorer(unpacked) ?? model(unpacked) ?? upscaler(unpacked)
  const metadata = metadataOf(header.metadata)
  if (!found) return { ...failed(format, notUnderstood(header), metadata), ...totals(unpacked) }
  return withClaims(withScheme({ ...blank(format, metadata), ...totals(unpacked), ...found }))
}

/** What a table said, before the totals of the whole file. */
type Found = Pick<Verdict, 'kind'> & Partial<Verdict>

function totals(unpacked: Unpacked): Pick<Verdict, 'parameters' | 'precision' | 'quantisation'> {
  const { bytes: _, ...sums } = unpacked.sum('')
  return sums
}

function notUnderstood(header: Header): Reason {
  const names = [...header.tensors.keys()]
  const looked = names.slice(0, 4096)
  const other = otherKinds.find(([, pattern]) => looked.some((name) => pattern.test(name)))
  const what = other
    ? `It is ${other[0]}, which Darkroom has no use for`
    : `No rule fits its ${names.length} tensors; the first are ${names.slice(0, 3).map(quote).join(', ')}`
  return reasonOf('not_understood', 'tensors', `${what}.`)
}

function said(row: Row, part: Part): Found {
  const { kind, family, variants, dialect, encoder, architecture, algorithms, note } = row
  return {
    kind,
    variants: [...(variants ?? [])],
    figures: part.figures(row),
    notes: note === undefined ? [] : [note],
    ...(family && { family }),
    ...(dialect && { dialect }),
    ...(encoder && { encoder }),
    ...(architecture !== undefined && { architecture }),
    ...(algorithms && { algorithms: [...algorithms] }),
  }
}

function adapter({ weights }: Unpacked): Found | undefined {
  const part = new Part(weights, '')
  const row = rowOf(part, controlRows) ?? rowOf(part, t2iRows) ?? rowOf(part, ipRows)
  return row && said(row, part)
}

function lora({ weights }: Unpacked): Found | undefined {
  const found = loraOf(weights)
  if (!found) return undefined
  const { algorithms, dialect, family, targets, rank, contextSize, note } = found
  const open = 'The modules that it changes are those of several families: its name or its author says for which it is.'
  return {
    kind: 'lora',
    algorithms,
    dialect,
    targets,
    ...(family && { family }),
    figures: { ...(rank !== undefined && { rank }), ...(contextSize !== undefined && { contextSize }) },
    notes: family ? (note === undefined ? [] : [note]) : [open],
  }
}

/** Widths of text vectors, with the family whose only encoder has them. */
const widths = new Map<number, KnownFamily | undefined>([
  [768, 'sd1'],
  [1024, 'sd2'],
  [1280, 'sdxl'],
  [96, 'sd1'],
])
/** Most words' places of an embedding: a prompt has 75. */
const maxVectors = 256

/** Textual inversion: vectors for one encoder, or for SDXL's two. */
function embedding({ weights }: Unpacked): Found | undefined {
  const [clipL, clipG, params] = ['clip_l', 'clip_g', 'emb_params'].map((name) => vectorsOf(weights.get(name)))
  if ((clipL ?? clipG) && weights.size <= 3)
    return {
      kind: 'embedding',
      ...(clipG && { family: 'sdxl' }),
      figures: { vectors: (clipL ?? clipG)?.vectors, hiddenSize: (clipL ?? clipG)?.size } as Figures,
      notes: clipG ? [] : ['It is made for CLIP-L alone, which several families have.'],
    }
  if (weights.size > 3) return undefined
  const alone = params ?? (weights.size === 1 ? vectorsOf(weights.values().next().value) : undefined)
  if (!alone) return undefined
  const family = widths.get(alone.size)
  return { kind: 'embedding', ...(family && { family }), figures: { vectors: alone.vectors, hiddenSize: alone.size } }
}

function vectorsOf(weight: Weight | undefined): { vectors: number; size: number } | undefined {
  const shape = weight?.shape
  if (!shape || shape.length === 0 || shape.length > 2) return undefined
  const [vectors, size] = [shape.length === 2 ? (shape[0] ?? 0) : 1, shape.at(-1) ?? 0]
  return widths.has(size) && vectors >= 1 && vectors <= maxVectors ? { vectors, size } : undefined
}

interface Located {
  row: Row
  part: Part
}

function locate(weights: Unpacked['weights'], prefixes: Iterable<string>, rows: readonly Row[]): Located | undefined {
  for (const prefix of prefixes) {
    const part = new Part(weights, prefix)
    const row = rowOf(part, rows)
    if (row) return { row, part }
  }
  return undefined
}

/** Networks that draw, their text encoders and VAE, each alone or in one file. */
function model(unpacked: Unpacked): Found | undefined {
  const { weights } = unpacked
  const denoiser = locate(weights, denoiserPrefixes, denoisers)
  const vae = locate(weights, vaePrefixes, vaeRows)
  const encoders = encoderParts(weights).flatMap((prefix) => locate(weights, [prefix], textEncoderRows) ?? [])
  if (!denoiser) {
    const parts = [...encoders, ...(vae ? [vae] : [])]
    const [only, ...more] = parts
    if (only && more.length === 0) return said(only.row, only.part)
    if (only)
      return {
        ...said(only.row, only.part),
        components: parts.map((part, i) => component(unpacked, part, part === vae ? 'vae' : encoderName(i))),
      }
    return alone(weights, visionRows) ?? alone(weights, classifierRows)
  }
  const found = withVariants(said(denoiser.row, denoiser.part), denoiser.part, weights)
  const { family, variants = [], figures = {} } = found
  const order = family ? (needsOf(family, variants, figures.contextSize)?.encoders ?? []) : []
  const components = [
    component(unpacked, denoiser, denoiserName(family)),
    ...encoders.map((encoder, i) => {
      const at = order.findIndex((name) => name === encoder.row.encoder)
      return component(unpacked, encoder, encoderName(at === -1 ? i : at, variants.includes('refiner')))
    }),
    ...(vae ? [component(unpacked, vae, 'vae')] : []),
  ]
  return {
    ...found,
    kind: components.length > 1 ? 'checkpoint' : 'diffusion-model',
    components,
    lacks: family ? lacksOf(family, variants, components, figures.contextSize) : [],
  }
}

const denoiserName = (family: KnownFamily | undefined): string =>
  family === 'sd1' || family === 'sd2' || family === 'sdxl' ? 'unet' : 'transformer'

function alone(weights: Unpacked['weights'], rows: readonly Row[]): Found | undefined {
  const found = locate(weights, [''], rows)
  return found && said(found.row, found.part)
}

/** Prefixes under which text encoders may lie: the known ones, and each `text_encoders.NAME.` that is there. */
function encoderParts(weights: Unpacked['weights']): string[] {
  const named = new Set<string>()
  for (const name of weights.keys()) {
    const found = name.startsWith('text_encoders.') ? /^text_encoders\.[^.]+\.(?:transformer\.)?/.exec(name)?.[0] : undefined
    if (found !== undefined && named.size < 6) named.add(found)
  }
  return [...named, ...encoderPrefixes]
}

function component(unpacked: Unpacked, { row, part }: Located, name: string): Component {
  const { kind, encoder, dialect } = row
  return {
    name,
    kind,
    at: part.prefix,
    ...unpacked.sum(part.prefix),
    figures: part.figures(row),
    ...(encoder && { encoder }),
    ...(dialect && { dialect }),
  }
}

function withVariants(found: Found, part: Part, weights: Unpacked['weights']): Found {
  const variants = new Set<Variant>(found.variants)
  for (const row of denoiserVariants) if (row.family === found.family && part.matches(row)) variants.add(row.variant)
  for (const [mark, variant] of rootMarks) if (weights.has(mark)) variants.add(variant)
  const open = openQuestions.filter(
    ({ family, variant, unless = [] }) => family === found.family && variants.has(variant) && !unless.some((other) => variants.has(other)),
  )
  return { ...found, variants: [...variants], notes: [...(found.notes ?? []), ...open.map(({ note }) => note)] }
}

function restorer({ weights }: Unpacked): Found | undefined {
  for (const prefix of upscalerPrefixes) {
    const architecture = restorerOf(new Part(weights, prefix))
    if (architecture !== undefined) return { kind: 'face-restorer', architecture }
  }
  return undefined
}

function upscaler({ weights }: Unpacked): Found | undefined {
  for (const prefix of upscalerPrefixes) {
    const found = upscalerOf(new Part(weights, prefix), weights)
    if (!found) continue
    const { architecture, factor, imageChannels } = found
    const isColour = imageChannels === undefined || imageChannels === 3
    const reason = reasonOf('channels', 'tensors', `It enlarges pictures of ${imageChannels} channels, not of three.`)
    return {
      kind: 'upscaler',
      architecture,
      figures: { ...(factor !== undefined && { factor }), ...(imageChannels !== undefined && { imageChannels }) },
      ...(!isColour && { reason }),
    }
  }
  return undefined
}

/** Weights whose packing no loader knows are refused by its name. */
function withScheme(verdict: Verdict): Verdict {
  const unknown = [verdict.quantisation, ...verdict.components.map(({ quantisation }) => quantisation)].find(
    (quantisation) => quantisation?.scheme === 'unknown',
  )
  if (!unknown || verdict.reason) return verdict
  const { type, scales } = unknown
  return {
    ...verdict,
    reason: reasonOf(
      'quantisation',
      'tensors',
      `Its weights are packed as ${type} with ${quote(scales ?? '')}, a scheme that is not known.`,
    ),
  }
}

/** What the author says besides: what tensors cannot tell is taken up as such, a contradiction is noted. */
function withClaims(verdict: Verdict): Verdict {
  const { family, metadata, kind } = verdict
  const notes = [...verdict.notes]
  const variants = new Set(verdict.variants)
  const isDrawing = kind === 'checkpoint' || kind === 'diffusion-model'
  const isUnet = family === 'sd1' || family === 'sd2' || family === 'sdxl'
  if (isDrawing && isUnet && metadata.prediction === 'v' && !variants.has('v-prediction')) {
    variants.add('v-prediction')
    notes.push('It predicts v by its author’s word; tensors do not tell.')
  }
  if (
    isDrawing &&
    /kontext|edit/i.test(metadata.architecture ?? '') &&
    (family === 'flux1' || family === 'qwen-image') &&
    !variants.has('edit')
  ) {
    variants.add('edit')
    notes.push('It edits pictures by its author’s word; tensors do not tell.')
  }
  const claimed = claimedFamily(metadata)
  if (claimed && family && claimed !== family) notes.push(`Its author calls it ${claimed}, its tensors are those of ${family}.`)
  return { ...verdict, variants: [...variants], notes }
}
