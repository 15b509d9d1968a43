/**
 * Makes a model of files: the network in one, text encoders and VAE in it or in others, and what no file of weights
 * holds from the configurations that fit. Nothing is guessed: what does not fit is lacking, and said so.
 */
import { dirname, basename, join } from 'node:path'
import { besideEnding, figuresOf, fits, predictionOf, type ConfigPart, type ConfigSet } from './configs.ts'
import type { Entry } from './entry.ts'
import { textIn } from './json-file.ts'
import type { Made, MadeOf, ModelPart } from './made.ts'
import { encoderName, needsOf } from './needs.ts'
import { packingName, plainTypes, unpackable } from './quantisation.ts'
import { pipelineOf } from './rules/pipelines.ts'
import type { Component, Figures, Format, KnownFamily, Precision, Quantisation, TextEncoder, Variant } from './verdict.ts'
import { familyNames } from './families.ts'

/** Text encoders and VAEs that models may take, and configurations. */
export interface Stock {
  encoders: ReadonlyMap<TextEncoder, readonly Entry[]>
  vaes: readonly Entry[]
  /** By path: a VAE beside a model. */
  vaeAt: ReadonlyMap<string, Entry>
  sets: readonly ConfigSet[]
}

/** What a model is made of, or what it lacks, one sentence's end each: `vae (of 4 latent channels)`. */
export type Composition = { made: Made; home: ConfigSet } | { lacks: string[] }

/** Endings of a VAE's file that belongs to the model beside it, as A1111 has them. */
const vaeEndings = ['.vae.safetensors', '.vae.sft']
/** How to pack weights so that they can be loaded; of GGUF's types plain numbers, and `unpackable`. */
const loadable: readonly Quantisation['scheme'][] = ['fp8', 'fp8-scaled', 'bnb-nf4', 'bnb-fp4']
const isLoadable = ({ scheme, type }: Quantisation): boolean =>
  scheme === 'gguf' ? [...plainTypes, ...unpackable].includes(type) : loadable.includes(scheme)
/** Formats of files that models are made of. */
const madeOf: readonly Format[] = ['safetensors', 'gguf']
/** Of two encoders that are the same but for it, the first counts; those that are packed come last. */
const precise: readonly Precision[] = ['fp32', 'bf16', 'fp16', 'fp8-e4m3', 'fp8-e5m2']

const stemOf = (path: string): string => join(dirname(path), basename(path).replace(/\.[^.]+$/, ''))
/** Where the configurations of a model lie that has its own. */
export const besideOf = (path: string): string => stemOf(path) + besideEnding

/** Whether a model of this entry is made here, as far as its kind goes. */
export const isMadeHere = ({ isFolder, verdict }: Entry): boolean =>
  !isFolder && madeOf.includes(verdict.format) && !verdict.reason && (verdict.kind === 'checkpoint' || verdict.kind === 'diffusion-model')

/** What the models of one host can take. */
export function stockOf(entries: Iterable<Entry>, sets: readonly ConfigSet[]): Stock {
  const encoders = new Map<TextEncoder, Entry[]>()
  const vaes: Entry[] = []
  const inOrder = [...entries].filter(({ verdict, isFolder }) => madeOf.includes(verdict.format) && !verdict.reason && !isFolder)
  for (const entry of inOrder.toSorted((a, b) => a.rank - b.rank || (a.path < b.path ? -1 : 1))) {
    const { kind, encoder, variants, dialect } = entry.verdict
    // llama.cpp keeps its eyes in another file, and the network has them.
    const isBlind = encoder === 'qwen2.5-vl-7b' && dialect === 'llama'
    if (kind === 'text-encoder' && encoder && !isBlind) encoders.set(encoder, [...(encoders.get(encoder) ?? []), entry])
    if (kind === 'vae' && !variants.includes('tiny')) vaes.push(entry)
  }
  const order = ({ verdict }: Entry): number => (precise.indexOf(verdict.precision as Precision) + 100) % 100
  for (const [name, some] of encoders)
    encoders.set(
      name,
      some.toSorted((a, b) => order(a) - order(b)),
    )
  return { encoders, vaes, vaeAt: new Map(vaes.map((entry) => [entry.path, entry])), sets }
}

/** Where the weights of a part are. */
interface Source {
  entry: Entry
  prefix: string
  figures: Figures
  quantisation: Quantisation | undefined
}

const ofComponent = (entry: Entry, { at, figures = {}, quantisation }: Component): Source => ({ entry, prefix: at, figures, quantisation })
const ofFile = (entry: Entry): Source => ({ entry, prefix: '', figures: entry.verdict.figures, quantisation: entry.verdict.quantisation })

/** `beside`: the model's own configurations, which count before all others. */
export function compose(entry: Entry, stock: Stock, beside: ConfigSet | undefined): Composition {
  const { family, variants, components, figures } = entry.verdict
  const needs = family && needsOf(family, variants, figures.contextSize)
  const denoiser = components.find(({ kind }) => kind === 'diffusion-model')
  if (!family || !needs || !denoiser) return { lacks: ['a family that is known'] }
  const sets = [...(beside ? [beside] : []), ...stock.sets]
  const homes = sets.filter((set) => (set === beside || isOf(set, family, variants)) && denoiserConfig(set, denoiser, entry))
  const home = homes[0]
  const lacks: string[] = []
  const builder = new Builder(entry)

  const add = (name: string, source: Source | undefined, config: ConfigPart | undefined, what: string): void => {
    if (!source) lacks.push(`${name}${what}`)
    else if (source.quantisation && !isLoadable(source.quantisation))
      lacks.push(`${name} in a packing that is loaded: ${packingName(source.quantisation)} is not`)
    else if (config) builder.add(name, config, source)
    else lacks.push(`a configuration for ${name}${what}`)
  }

  add(denoiser.name, ofComponent(entry, denoiser), home && denoiserConfig(home, denoiser, entry), ` (${familyNames[family]})`)
  for (const [i, encoder] of needs.encoders.entries()) {
    const name = encoderName(i, variants.includes('refiner'))
    const own = components.find((component) => component.encoder === encoder)
    const other = stock.encoders.get(encoder)?.[0]
    const source = own ? ofComponent(entry, own) : other && ofFile(other)
    const found = source && encoderConfigs(sets, encoder, source.figures)
    add(name, source, found?.config, ` (${encoder})`)
    const tokenizer = name.replace('text_encoder', 'tokenizer')
    if (found?.tokenizer) builder.add(tokenizer, found.tokenizer)
    else if (source) lacks.push(`${tokenizer}, the vocabulary of ${encoder}`)
  }
  const vae = vaeOf(entry, stock, needs.latentChannels, homes)
  const vaeConfig = 'entry' in vae ? homes.map((set) => set.parts.get('vae')).find((part) => fitsVae(part, vae.figures)) : undefined
  if ('entry' in vae) add('vae', vae, vaeConfig, ` (of ${needs.latentChannels} latent channels)`)
  else lacks.push(vae.lack)
  const scheduler = beside?.parts.get('scheduler') ?? schedulerOf(homes, entry)
  if (typeof scheduler === 'object') builder.add('scheduler', scheduler)
  else if (home) lacks.push(scheduler ?? 'scheduler')
  if (lacks.length > 0 || !home) return { lacks }
  if (needs.readsIndex && home.index) builder.add('', home.index)
  return { made: builder.made(), home }
}

/**
 * SD1 and SD2 are drawn by one pipeline: their tensors tell them apart. Of Qwen-Image the index says whether it edits.
 */
function isOf({ family, index }: ConfigSet, wanted: KnownFamily, variants: readonly Variant[]): boolean {
  const edits = pipelineOf(textIn(index?.config ?? {}, '_class_name') ?? '')?.variants.includes('edit') ?? false
  if (wanted === 'qwen-image') return family === wanted && edits === variants.includes('edit')
  return family === wanted || (wanted === 'sd2' && family === 'sd1')
}

/** The configuration of a network of this size. A set may hold several: `unet_2` is that for inpainting. */
function denoiserConfig(set: ConfigSet, { name, figures = {} }: Component, { verdict }: Entry): ConfigPart | undefined {
  const { family, variants } = verdict
  const isMeant = (config: ConfigPart['config']): boolean => {
    if (family === 'flux1') return (config['guidance_embeds'] === true) === variants.includes('guidance-distilled')
    if (family === 'sd3') return (config['qk_norm'] === 'rms_norm') === variants.includes('3.5')
    return true
  }
  const all = [...set.parts.values()].filter((part) => part.name === name || part.name.startsWith(`${name}_`))
  return all.find(({ config }) => fits(config, figures) && isMeant(config))
}

/** Whether a VAE is of the kind that a configuration speaks of: those of video models have no list of channels. */
const fitsVae = (part: ConfigPart | undefined, figures: Figures): boolean =>
  part !== undefined && fits(part.config, figures) && figuresOf(part.config).channels === figures.channels

/**
 * Tensors do not tell what a network predicts, nor how far its noise is shifted: its author does, else what is usual. A
 * set may hold several, `scheduler_2` beside `scheduler`. Sets that differ in their shift are not chosen between, and
 * that is returned in words.
 */
function schedulerOf(homes: readonly ConfigSet[], { path, verdict: { variants } }: Entry): ConfigPart | string | undefined {
  const all = homes.flatMap(({ parts }) => [...parts.values()].filter(({ name }) => name.startsWith('scheduler')))
  if (new Set(all.map(({ config }) => config['shift'])).size > 1) {
    const names = homes.map((set) => basename(set.path)).join(', ')
    return `scheduler: ${names} fit and differ in their shift, so put the one that is meant into ${basename(besideOf(path))}/scheduler`
  }
  const said = variants.filter((variant) => variant === 'v-prediction' || variant === 'zero-snr').join(' ')
  const same = all.find(({ config }) => predictionOf(config) === said)
  return same ?? (said === '' ? all[0] : undefined)
}

/** What the configurations of text encoders call themselves. */
const typeOf: Readonly<Record<TextEncoder, RegExp>> = {
  'clip-l': /^clip/,
  'clip-h': /^clip/,
  'clip-g': /^clip/,
  'darkroom-tiny': /^clip/,
  't5-xxl': /^t5$/,
  't5-xl': /^t5$/,
  't5-base': /^t5$/,
  'umt5-xxl': /^umt5$/,
  'qwen2.5-vl-7b': /^qwen2_5_vl/,
  'qwen3-4b': /^qwen3$/,
  'qwen3-8b': /^qwen3$/,
  'mistral-small-24b': /^mistral/,
  'gemma2-2b': /^gemma2$/,
  'llama3-8b': /^llama$/,
}

/** Configuration and vocabulary of a text encoder of this size; a tokenizer is numbered as the encoder it goes with. */
function encoderConfigs(
  sets: readonly ConfigSet[],
  encoder: TextEncoder,
  figures: Figures,
): { config?: ConfigPart; tokenizer?: ConfigPart } {
  const found = sets.flatMap((set) =>
    [...set.parts.values()]
      .filter(
        ({ name, config }) =>
          name.startsWith('text_encoder') && typeOf[encoder].test(textIn(config, 'model_type') ?? '') && fits(config, figures),
      )
      .map((config) => ({ config, tokenizer: withWords(set.parts.get(config.name.replace('text_encoder', 'tokenizer'))) })),
  )
  const tokenizer = found.find((each) => each.tokenizer)?.tokenizer
  return { ...(found[0] && { config: found[0].config }), ...(tokenizer && { tokenizer }) }
}

/** A tokenizer that has its vocabulary, as one of the libraries reads it. */
function withWords(tokenizer: ConfigPart | undefined): ConfigPart | undefined {
  const names = new Set(tokenizer?.files.map(({ path }) => basename(path)))
  const alone = ['tokenizer.json', 'spiece.model', 'tokenizer.model', 'tekken.json'].some((name) => names.has(name))
  return alone || (names.has('vocab.json') && names.has('merges.txt')) ? tokenizer : undefined
}

function vaeOf(entry: Entry, { vaes, vaeAt }: Stock, latentChannels: number, homes: readonly ConfigSet[]): Source | { lack: string } {
  const beside = vaeEndings.map((ending) => vaeAt.get(stemOf(entry.path) + ending)).find(Boolean)
  if (beside) return ofFile(beside)
  const own = entry.verdict.components.find(({ kind }) => kind === 'vae')
  if (own) return ofComponent(entry, own)
  const { family } = entry.verdict
  const fitting = vaes.filter(
    ({ path, verdict }) =>
      verdict.figures.latentChannels === latentChannels &&
      (!verdict.family || verdict.family === family) &&
      (homes.length === 0 || homes.some(({ parts }) => fitsVae(parts.get('vae'), verdict.figures))) &&
      !vaeEndings.some((ending) => path.endsWith(ending)),
  )
  const [only, ...more] = fitting
  if (only && more.length === 0) return ofFile(only)
  const what = `vae (of ${latentChannels} latent channels)`
  if (!only) return { lack: what }
  const names = fitting.slice(0, 3).map(({ name }) => name)
  return {
    lack: `${what}: ${names.join(', ')} fit, so put the one that is meant beside it as ${basename(stemOf(entry.path))}${vaeEndings[0]}`,
  }
}

/** Gathers parts and the files that they come from. */
class Builder {
  readonly #parts: ModelPart[] = []
  readonly #configs: MadeOf[] = []
  readonly #weights = new Map<string, { entry: Entry; names: string[] }>()

  constructor(entry: Entry) {
    this.#weights.set(entry.path, { entry, names: [] })
  }

  add(name: string, config: ConfigPart, source?: Source): void {
    this.#parts.push({ name, folder: config.folder, weights: source ? { path: source.entry.path, prefix: source.prefix } : null })
    this.#configs.push(...config.files.map((file) => ({ ...file, role: join(name, basename(file.path)) })))
    if (!source) return
    const known = this.#weights.get(source.entry.path) ?? { entry: source.entry, names: [] }
    this.#weights.set(source.entry.path, { ...known, names: [...known.names, name] })
  }

  made(): Made {
    const weights = [...this.#weights.values()].flatMap(({ entry, names }) =>
      entry.files.map((file): MadeOf => ({ ...file, path: entry.path, role: names.join('+') })),
    )
    return { parts: this.#parts, files: [...weights, ...this.#configs.toSorted((a, b) => (a.role < b.role ? -1 : 1))] }
  }
}
