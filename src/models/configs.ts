/**
 * What a file of weights does not hold: configurations, tokenizers and schedulers. They lie in folders as diffusers
 * lays them out, without weights, in sets: those that come with Darkroom, those that set-up has made, those that the
 * operator has imported, and those that lie beside a model.
 */
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { root } from '../../host/home.mjs'
import { madeConfigs } from '../../host/places.mjs'
import { isIgnored, isPart } from './folder-names.ts'
import type { FileState } from './found.ts'
import { numberIn, readJsonFile, textIn, type Json } from './json-file.ts'
import { pipelineOf } from './rules/pipelines.ts'
import type { Figures, KnownFamily } from './verdict.ts'

/** Sets that come with Darkroom. */
const shippedConfigs = join(root, 'python', 'darkroom', 'configs')
/** Where `darkroom models import-config` puts them. */
export const importedConfigs = (data: string): string => join(data, 'configs')
/** Folders of sets, in the order in which they count. */
export const configRoots = ({ data, home }: { data: string; home: string }): string[] => [
  importedConfigs(data),
  madeConfigs(home),
  shippedConfigs,
]

/** Ending of a folder beside `NAME.safetensors` that has its configurations: `NAME.configs`. */
export const besideEnding = '.configs'

export interface ConfigPart {
  name: string
  folder: string
  config: Json
  /** With absolute paths. */
  files: FileState[]
}

export interface ConfigSet {
  path: string
  /** Of its pipeline, where it names one. */
  family: KnownFamily | undefined
  parts: ReadonlyMap<string, ConfigPart>
  /** Its `model_index.json` as a part without a name. */
  index: ConfigPart | undefined
}

/** Files that libraries read of a part, and none with weights. */
export const isConfigFile = (name: string): boolean =>
  !isIgnored(name) && /\.(json|txt|model|jinja)$/.test(name) && !/\.index\.|\.index/.test(name)

/** The sets in these folders; what cannot be read is left out. */
export async function readConfigSets(roots: readonly string[]): Promise<ConfigSet[]> {
  const sets: ConfigSet[] = []
  for (const folder of roots) {
    const names = await readdir(folder).catch((): string[] => [])
    for (const name of names.toSorted()) {
      const set = isIgnored(name) ? undefined : await readConfigSet(join(folder, name))
      if (set) sets.push(set)
    }
  }
  return sets
}

/** One set; undefined where there is none. */
export async function readConfigSet(path: string): Promise<ConfigSet | undefined> {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => [])
  const parts = new Map<string, ConfigPart>()
  for (const { name } of entries) {
    const part = isPart(name) ? await readPart(join(path, name), name) : undefined
    if (part) parts.set(name, part)
  }
  if (parts.size === 0) return undefined
  const config = await readJson(path, 'model_index.json')
  const files = await states(path, ['model_index.json'])
  const family = pipelineOf(textIn(config, '_class_name') ?? '')?.family
  return { path, family, parts, index: files.length > 0 ? { name: '', folder: path, config, files } : undefined }
}

async function readPart(folder: string, name: string): Promise<ConfigPart | undefined> {
  const names = (await readdir(folder).catch((): string[] => [])).filter(isConfigFile).toSorted()
  if (names.length === 0) return undefined
  const own = names.find((file) => file === 'config.json' || file === 'scheduler_config.json')
  return { name, folder, config: own === undefined ? {} : await readJson(folder, own), files: await states(folder, names) }
}

/** Empty where it is missing or faulty: then it fits nothing. */
const readJson = (folder: string, name: string): Promise<Json> => readJsonFile(join(folder, name), name).catch((): Json => ({}))

/** Of those that are there, with absolute paths. */
export async function states(folder: string, names: readonly string[]): Promise<FileState[]> {
  const found: FileState[] = []
  for (const name of names) {
    const path = join(folder, name)
    const file = await stat(path).catch(() => undefined)
    if (file?.isFile()) found.push({ path, size: file.size, modifiedMs: file.mtimeMs, inode: file.ino })
  }
  return found
}

/** What tensors would have to be for this configuration, by the names under which headers tell it. */
export function figuresOf(config: Json): Figures {
  const inner = Object.hasOwn(config, 'text_config') ? (config['text_config'] as Json) : config
  const number = (...names: string[]): number | undefined => names.map((name) => numberIn(inner, name)).find((value) => value !== undefined)
  const blocks = listIn(config, 'block_out_channels')
  const isVae = textIn(config, '_class_name')?.startsWith('Autoencoder') ?? false
  const isTransformer = /Transformer2D/.test(textIn(config, '_class_name') ?? '')
  const heads = [number('num_attention_heads'), number('attention_head_dim')]
  const figures: Record<keyof Figures, number | undefined> | Figures = {
    latentChannels: isVae ? number('latent_channels', 'z_dim') : undefined,
    inputChannels: isVae || isTransformer ? undefined : number('in_channels'),
    contextSize: isTransformer ? undefined : number('cross_attention_dim'),
    hiddenSize:
      isTransformer && heads[0] !== undefined && heads[1] !== undefined ? heads[0] * heads[1] : number('hidden_size', 'd_model', 'dim'),
    layers: isTransformer ? undefined : number('num_hidden_layers', 'num_layers'),
    channels: isVae ? blocks?.at(-1) : blocks?.[0],
  } as Figures
  return Object.fromEntries(Object.entries(figures).filter(([, value]) => value !== undefined)) as Figures
}

function listIn(config: Json, name: string): number[] | undefined {
  const value = Object.hasOwn(config, name) ? config[name] : undefined
  return Array.isArray(value) && value.every((each) => typeof each === 'number') ? value : undefined
}

/** Whether tensors of these figures are those that a configuration speaks of: they agree wherever both say any. */
export function fits(config: Json, found: Figures): boolean {
  const said = Object.entries(figuresOf(config))
  return said.length > 0 && said.every(([name, value]) => (found[name as keyof Figures] ?? value) === value)
}

/** What a scheduler's configuration says of the model's prediction, as detection names it. */
export const predictionOf = (config: Json): string =>
  [textIn(config, 'prediction_type') === 'v_prediction' && 'v-prediction', config['rescale_betas_zero_snr'] === true && 'zero-snr']
    .filter(Boolean)
    .join(' ')
