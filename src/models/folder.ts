/**
 * A folder's verdict, where the folder as a whole is one model: a pipeline of diffusers by its `model_index.json`, one
 * part of one, an encoder, classifier or preprocessor of transformers, an adapter of peft, a graph of ONNX.
 * Configurations say what there should be, headers what there is; nothing of a folder is ever run or unpickled.
 */
import { opendir, realpath } from 'node:fs/promises'
import { join, sep } from 'node:path'
import { detect } from './detect.ts'
import { HeaderFault, quote } from './header.ts'
import { readJsonFile, numberIn, textIn, type Json } from './json-file.ts'
import { lacksOf } from './needs.ts'
import { graphName, manifestedBy, manifests, onnxModel } from './onnx.ts'
import { kindOfClass, pipelineOf, plainParts } from './rules/pipelines.ts'
import { preprocessorOf } from './rules/preprocessors.ts'
import {
  blank,
  failed,
  reasonOf,
  type Component,
  type Format,
  type KnownFamily,
  type Reason,
  type Variant,
  type Verdict,
} from './verdict.ts'
import { isWeights, opened, preferred, readWeights, whyNone, type Resolve, type Weights } from './weights.ts'

export type FolderKind = 'diffusers' | 'component' | 'transformers' | 'peft' | 'onnx'

/** Whether a folder is one model, from the names of its entries: then its files are no models of their own. */
export function modelFolderOf(names: readonly string[]): FolderKind | undefined {
  const has = (name: string): boolean => names.includes(name)
  if (has('model_index.json')) return 'diffusers'
  if (has('adapter_config.json')) return 'peft'
  if (manifestedBy(has)) return 'onnx'
  if (!has('config.json') || !names.some((name) => isWeights(name) || /\.index(?:\.[\w-]+)?\.json$/.test(name))) return undefined
  return names.some((name) => name.startsWith('diffusion_pytorch_model')) ? 'component' : 'transformers'
}

const formats: Record<FolderKind, Format> = {
  diffusers: 'diffusers',
  component: 'diffusers',
  transformers: 'transformers',
  peft: 'peft',
  onnx: 'onnx',
}

/** Most entries of one folder that are looked at. */
const maxEntries = 4096
/** Most parts of a pipeline; the largest has ten. */
const maxParts = 32

/** Follows a link to its end; undefined when that is not one of the places that may be read. */
export type FollowLinks = (path: string) => Promise<string | undefined>

/** The places that may be read are, unless it is said otherwise, what lies in the folder itself. */
const within =
  (folder: string): FollowLinks =>
  async (path) => {
    const [root, real] = await Promise.all([realpath(folder), realpath(path)]).catch(() => [])
    return root !== undefined && real?.startsWith(root + sep) ? real : undefined
  }

/**
 * The verdict of a folder that `modelFolderOf` knows. `follow` says where links may lead: the cache of Hugging Face
 * keeps every file as one. Whatever is wrong with the folder is the verdict's reason, with the path inside the folder.
 */
export async function inspectFolder(path: string, follow: FollowLinks = within(path)): Promise<Verdict> {
  const folder = new Folder(path, '', follow)
  let format: Format = 'diffusers'
  try {
    const kind = modelFolderOf(await folder.names())
    if (!kind) throw new HeaderFault('config', '.', 'It has neither model_index.json nor config.json with weights beside it.')
    format = formats[kind]
    if (kind === 'diffusers') return await pipeline(folder)
    if (kind !== 'onnx') return await single(folder, kind)
    const names = await folder.names()
    const what = manifestedBy((name) => names.includes(name)) ?? 'classifier'
    return await onnxModel(
      what,
      await folder.json(manifests[what]),
      names.includes(graphName) ? await folder.resolve(graphName) : undefined,
    )
  } catch (error) {
    if (error instanceof HeaderFault) return failed(format, error.reason)
    throw error
  }
}

/** One folder of a model; `at` is its path in the model with a slash behind, empty for the model itself. */
class Folder {
  readonly #path: string
  readonly at: string
  readonly #follow: FollowLinks
  readonly resolve: Resolve
  #names: string[] | undefined

  constructor(path: string, at: string, follow: FollowLinks) {
    this.#path = path
    this.at = at
    this.#follow = follow
    this.resolve = (name) => follow(join(path, name))
  }

  /** Names of its entries; none when it is not there or cannot be read. */
  async names(): Promise<string[]> {
    if (this.#names) return this.#names
    const names: string[] = []
    try {
      for await (const entry of await opendir(this.#path)) {
        names.push(entry.name)
        if (names.length === maxEntries) break
      }
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : undefined
      if (code !== 'ENOENT' && code !== 'ENOTDIR')
        throw new HeaderFault('unreadable', this.at || '.', `The operating system refuses to read the folder: ${String(code)}.`)
    }
    this.#names = names
    return names
  }

  async json(name: string): Promise<Json> {
    return readJsonFile(await opened(name, this.resolve, this.at), this.at + name)
  }

  async inside(name: string): Promise<Folder> {
    return new Folder((await this.#follow(join(this.#path, name))) ?? join(this.#path, name, '?'), `${this.at}${name}/`, this.#follow)
  }

  async weights(): Promise<Weights> {
    return readWeights(await this.names(), this.resolve, this.at)
  }
}

/** One part that is loaded by itself: an encoder, a VAE, a ControlNet, an adapter of peft. */
async function single(folder: Folder, kind: Exclude<FolderKind, 'diffusers' | 'onnx'>): Promise<Verdict> {
  const format = formats[kind]
  const config = await folder.json(kind === 'peft' ? 'adapter_config.json' : 'config.json')
  const weights = await folder.weights()
  const variant = preferred(weights)
  const className = textIn(config, '_class_name') ?? firstArchitecture(config)
  const reason = whyNone(weights, '')
  if (!variant?.header)
    return {
      ...failed(format, reason ?? reasonOf('weights_missing', '.', 'The folder has no weights.')),
      kind: kindOfClass(className ?? ''),
    }
  const verdict = verdictBy(className, config, detect(variant.header, format))
  // It says how a picture goes in; without it nobody can tell.
  if (verdict.kind === 'preprocessor' && !verdict.reason) await folder.json('preprocessor_config.json')
  const base = textIn(config, 'base_model_name_or_path')
  const isNamed = verdict.kind === 'unknown' && className !== undefined && kindOfClass(className) !== 'unknown'
  const { name, encoder, dialect, ...part } = componentOf(verdict, weights, { name: '', at: '' })
  const component: Component = { name: name || verdict.kind, ...part, ...(encoder && { encoder }), ...(dialect && { dialect }) }
  return {
    ...(isNamed
      ? { ...verdict, kind: kindOfClass(className), notes: [...verdict.notes, `Its configuration calls it ${quote(className)}.`] }
      : verdict),
    components: [component],
    notes: [...verdict.notes, ...brokenVariants(weights)],
    metadata: { ...(base !== undefined && { base: quote(base).slice(1, -1) }), ...verdict.metadata },
  }
}

/** What tensors say, with what a configuration alone tells of a preprocessor. */
function verdictBy(className: string | undefined, config: Json, verdict: Verdict): Verdict {
  if (className === undefined || kindOfClass(className) !== 'preprocessor') return verdict
  const { format, parameters, precision, quantisation, metadata, reason } = verdict
  const totals = { parameters, ...(precision && { precision }), ...(quantisation && { quantisation }), metadata }
  const said = { ...blank(format), ...totals, ...preprocessorOf(className, config) }
  // That no rule knows the tensors is no fault here; that nobody can unpack them is.
  return reason && reason.code !== 'not_understood' ? { ...said, reason } : said
}

function firstArchitecture(config: Json): string | undefined {
  const all = Object.hasOwn(config, 'architectures') ? config['architectures'] : undefined
  const first: unknown = Array.isArray(all) ? all[0] : undefined
  return typeof first === 'string' ? first : undefined
}

/** A variant beside the one that is loaded may be broken without harm. */
const brokenVariants = (weights: Weights): string[] =>
  weights.variants.flatMap(({ name, reason }) =>
    reason ? [`The variant ${quote(name || 'without a name')} cannot be used: ${reason.message}`] : [],
  )

function componentOf(verdict: Verdict, weights: Weights, place: { name: string; at: string }): Component {
  const { kind, encoder, dialect, precision, quantisation, parameters } = verdict
  const sound = weights.variants.filter(({ header }) => header)
  return {
    ...place,
    kind,
    parameters,
    bytes: preferred(weights)?.bytes ?? 0,
    files: Object.fromEntries(
      sound.map(({ name, files }) => [name, files.map((file) => (place.at === '' ? file : `${place.at}/${file}`))]),
    ),
    ...(encoder && { encoder }),
    ...(dialect && { dialect }),
    ...(precision && { precision }),
    ...(quantisation && { quantisation }),
  }
}

/** What a part of a pipeline came to. */
interface Part {
  component?: Component
  /** What its tensors are. */
  verdict?: Verdict
  config?: Json
  reason?: Reason
  notes?: string[]
}

async function pipeline(folder: Folder): Promise<Verdict> {
  const index = await folder.json('model_index.json')
  const className = textIn(index, '_class_name')
  if (className === undefined)
    throw new HeaderFault('config', 'model_index.json', 'model_index.json names no pipeline: “_class_name” is no text.')
  const said = pipelineOf(className)
  const parts = new Map<string, Part>()
  for (const [name, library, type] of partsOf(index)) parts.set(name, await readPart(await folder.inside(name), name, type, library))
  const all = [...parts.values()]
  const components = all.flatMap(({ component }) => component ?? [])
  const denoiser = all.find(({ component }) => component?.kind === 'diffusion-model')
  const scheduler = parts.get('scheduler')?.config ?? {}
  const family = familyOf(denoiser, said?.family)
  const variants = variantsOf(denoiser, said?.variants ?? [], scheduler)
  // Of no other model is it asked how much its picture is to be liked.
  if (family === 'sdxl' && index['requires_aesthetics_score'] === true && !variants.includes('refiner')) variants.push('refiner')
  const { figures = {}, dialect } = denoiser?.verdict ?? {}
  const notes = [
    ...all.flatMap(({ notes: found }) => found ?? []),
    ...(denoiser?.verdict?.notes ?? []),
    ...contradiction(said?.family, denoiser),
  ]
  const unfit =
    !family && reasonOf('not_understood', 'model_index.json', `Its pipeline is ${quote(className)}, of no family that is known.`)
  const reason = all.find(({ reason: found }) => found)?.reason ?? unfit
  return {
    ...blank('diffusers', denoiser?.verdict?.metadata),
    kind: 'checkpoint',
    ...(family && { family }),
    variants,
    dialect: dialect ?? 'diffusers',
    ...(denoiser?.component?.precision && { precision: denoiser.component.precision }),
    ...(denoiser?.component?.quantisation && { quantisation: denoiser.component.quantisation }),
    parameters: components.reduce((sum, { parameters }) => sum + parameters, 0),
    components,
    lacks: family ? lacksOf(family, variants, components, figures.contextSize).filter(({ name }) => !parts.get(name)?.component) : [],
    figures,
    notes,
    ...(reason && { reason }),
  }
}

/** The parts that an index names, with library and class; those that are `[null, null]` are left out. */
function partsOf(index: Json): [name: string, library: string, type: string][] {
  const fault = (name: string, what: string): HeaderFault =>
    new HeaderFault('config', 'model_index.json', `model_index.json: ${quote(name)} ${what}.`)
  const parts: [string, string, string][] = []
  for (const [name, value] of Object.entries(index)) {
    const isPart = Array.isArray(value) || /^(?:unet|transformer|vae|text_encoder|scheduler|tokenizer)(?:_\d)?$/.test(name)
    if (name.startsWith('_') || !isPart) continue
    if (!/^\w{1,64}$/.test(name)) throw fault(name, 'is no name of a folder')
    if (!Array.isArray(value) || value.length !== 2) throw fault(name, 'is no pair of library and class')
    const [library, type] = value as unknown[]
    if (library === null && type === null) continue
    if (typeof library !== 'string' || typeof type !== 'string') throw fault(name, 'is no pair of library and class')
    if (parts.length === maxParts) throw fault(name, `is one part too many; there are at most ${maxParts}`)
    parts.push([name, library, type])
  }
  if (parts.length === 0) throw new HeaderFault('config', 'model_index.json', 'model_index.json names no parts.')
  return parts
}

async function readPart(folder: Folder, name: string, type: string, library: string): Promise<Part> {
  try {
    const plain = plainParts.find(([pattern]) => pattern.test(name))
    const names = await folder.names()
    // Pictures are checked by classifiers of our own; a pipeline draws without its safety checker.
    if (names.length === 0 && name === 'safety_checker') return { notes: ['Its safety checker is not there.'] }
    if (names.length === 0)
      throw new HeaderFault('weights_missing', folder.at, `${folder.at} is not there or is empty, and model_index.json names it.`)
    if (plain) return { config: await readPlain(folder, names, plain[1]) }
    const config = await folder.json('config.json')
    const weights = await folder.weights()
    const header = preferred(weights)?.header
    const kind = kindOfClass(type)
    if (!header) {
      const reason = whyNone(weights, folder.at) ?? reasonOf('weights_missing', folder.at, `${folder.at} has no weights.`)
      if (name === 'safety_checker') return { notes: [`Its safety checker cannot be used: ${reason.message}`] }
      return { config, reason, ...isOf(kind, name) }
    }
    const verdict = detect(header, 'diffusers')
    const component = componentOf(verdict, weights, { name, at: name })
    const notes = brokenVariants(weights)
    if (!/^(?:diffusers|transformers)$/.test(library)) notes.push(`${folder.at} asks for code of ${quote(library)}, which is never run.`)
    return { config, verdict, component: { ...component, kind: kind === 'unknown' ? component.kind : kind }, notes }
  } catch (error) {
    if (!(error instanceof HeaderFault)) throw error
    return { reason: error.reason, ...isOf(kindOfClass(type), name) }
  }
}

/** A part that cannot be read is a part still: what it would be is known from its class. */
const isOf = (kind: Component['kind'], name: string): Pick<Part, 'component'> => ({
  component: { name, kind, at: name, parameters: 0, bytes: 0, files: {} },
})

/** A part without weights: one of its files must be there, and its configuration is read where it has one. */
async function readPlain(folder: Folder, names: readonly string[], files: readonly string[]): Promise<Json> {
  const found = files.find((file) => names.includes(file))
  if (found === undefined) throw new HeaderFault('weights_missing', folder.at, `${folder.at} has none of ${files.join(', ')}.`)
  if (names.includes('vocab.json') && !names.includes('merges.txt') && !names.includes('tokenizer.json'))
    throw new HeaderFault('weights_missing', `${folder.at}merges.txt`, `${folder.at} has vocab.json without merges.txt.`)
  return found.endsWith('_config.json') ? folder.json(found) : {}
}

/** Tensors decide; where they are of a size that no family has, the pipeline's class does. */
function familyOf(denoiser: Part | undefined, said: KnownFamily | undefined): KnownFamily | undefined {
  if (denoiser?.verdict?.family) return denoiser.verdict.family
  const context = denoiser?.config && numberIn(denoiser.config, 'cross_attention_dim')
  return said === 'sd1' && context === 1024 ? 'sd2' : said
}

function contradiction(said: KnownFamily | undefined, denoiser: Part | undefined): string[] {
  const family = denoiser?.verdict?.family
  const isOther = said && family && said !== family && !(said === 'sd1' && family === 'sd2')
  return isOther ? [`model_index.json names a pipeline of ${said}, its tensors are those of ${family}.`] : []
}

function variantsOf(denoiser: Part | undefined, said: readonly Variant[], scheduler: Json): Variant[] {
  const variants = new Set<Variant>([...(denoiser?.verdict?.variants ?? []), ...said])
  const channels = denoiser?.config && numberIn(denoiser.config, 'in_channels')
  const isUnet = denoiser?.component?.name === 'unet'
  if (isUnet && channels === 9) variants.add('inpainting')
  if (isUnet && channels === 8) variants.add('instruct')
  if (textIn(scheduler, 'prediction_type') === 'v_prediction') variants.add('v-prediction')
  if (scheduler['rescale_betas_zero_snr'] === true) variants.add('zero-snr')
  return [...variants]
}
