/**
 * What an author or a trainer wrote into a file: ModelSpec 1.0.1, kohya's `ss_*`, diffusers' and peft's. Text of a
 * stranger: escaped, capped in length and number, shown and searched, and decisive for nothing that tensors tell.
 */
import { escapeText } from './header.ts'
import type { KnownFamily, Metadata } from './verdict.ts'

const [line, paragraph, maxTags, maxFacts] = [200, 2000, 64, 48]

/** Fields of ours by the names that writers use, the first that is there wins. */
const fields: readonly [field: keyof Metadata, most: number, ...names: string[]][] = [
  ['title', line, 'modelspec.title', 'ss_output_name', 'general.name'],
  ['author', line, 'modelspec.author', 'general.author'],
  ['description', paragraph, 'modelspec.description', 'ss_training_comment', 'general.description'],
  ['licence', line, 'modelspec.license', 'general.license'],
  ['date', line, 'modelspec.date'],
  ['usage', paragraph, 'modelspec.usage_hint'],
  ['architecture', line, 'modelspec.architecture', 'ss_base_model_version', 'general.architecture'],
  ['base', line, 'modelspec.merged_from', 'ss_sd_model_name', 'base_model_name_or_path'],
  ['resolution', line, 'modelspec.resolution', 'ss_resolution'],
]

/** Training facts worth showing; trainers write a hundred. */
const facts = new Set([
  'network_module',
  'network_dim',
  'network_alpha',
  'network_args',
  'learning_rate',
  'unet_lr',
  'text_encoder_lr',
  'lr_scheduler',
  'optimizer',
  'num_train_images',
  'num_reg_images',
  'num_epochs',
  'epoch',
  'steps',
  'max_train_steps',
  'batch_size_per_device',
  'clip_skip',
  'noise_offset',
  'min_snr_gamma',
  'zero_terminal_snr',
  'v2',
  'mixed_precision',
  'seed',
])

export function metadataOf(text: ReadonlyMap<string, string>): Metadata {
  const metadata: Metadata = {}
  const said = (name: string, most: number): string | undefined => {
    const value = text.get(name)?.trim()
    return value === undefined || value === '' || value === 'None' ? undefined : escapeText(value, most)
  }
  for (const [field, most, ...names] of fields) {
    const value = names.map((name) => said(name, most)).find((found) => found !== undefined)
    if (value !== undefined) Object.assign(metadata, { [field]: value })
  }
  const tags = tagsOf(text)
  if (tags.length > 0) metadata.tags = tags
  const triggers = listOf(text.get('modelspec.trigger_phrase'))
  if (triggers.length > 0) metadata.triggerWords = triggers
  const prediction = predictionOf(text)
  if (prediction) metadata.prediction = prediction
  const training = trainingOf(text)
  if (Object.keys(training).length > 0) metadata.training = training
  return metadata
}

const listOf = (text: string | undefined): string[] =>
  (text ?? '')
    .slice(0, 16_384)
    .split(',')
    .map((word) => escapeText(word.trim(), line))
    .filter((word) => word !== '')
    .slice(0, maxTags)

/** ModelSpec's tags, and the words that kohya counted most often in the captions of its pictures. */
function tagsOf(text: ReadonlyMap<string, string>): string[] {
  const counts = new Map<string, number>()
  for (const folder of objectsIn(parsed(text.get('ss_tag_frequency'))))
    for (const [tag, count] of Object.entries(folder))
      if (typeof count === 'number' && counts.size < 8_192) counts.set(tag.trim(), (counts.get(tag.trim()) ?? 0) + count)
  const counted = [...counts]
    .toSorted((a, b) => b[1] - a[1])
    .slice(0, maxTags)
    .map(([tag]) => escapeText(tag, line))
  return [...new Set([...listOf(text.get('modelspec.tags')), ...counted])].filter((tag) => tag !== '').slice(0, maxTags)
}

const objectsIn = (value: unknown): Record<string, unknown>[] =>
  typeof value === 'object' && value !== null
    ? Object.values(value).filter((inner): inner is Record<string, unknown> => typeof inner === 'object' && inner !== null)
    : []

/** JSON inside a text; undefined when it is none. `JSON.parse` makes own properties of every name, `__proto__` too. */
function parsed(text: string | undefined): unknown {
  if (text === undefined || text.length > 512 * 1024 || tooDeep(text)) return undefined
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Whether brackets open deeper than any trainer writes; those inside texts count too, so it errs to the safe side. */
function tooDeep(text: string): boolean {
  let depth = 0
  for (let i = 0; i < text.length; i++) {
    const character = text.codePointAt(i)
    if (character === 0x5b || character === 0x7b) depth++
    else if (character === 0x5d || character === 0x7d) depth--
    if (depth > 64) return true
  }
  return false
}

function predictionOf(text: ReadonlyMap<string, string>): Metadata['prediction'] {
  const said = text.get('modelspec.prediction_type')?.toLowerCase()
  const names = new Map([
    ['v', 'v'],
    ['v_prediction', 'v'],
    ['epsilon', 'epsilon'],
    ['sample', 'sample'],
    ['flow', 'flow'],
    ['flow_match', 'flow'],
  ] as const)
  if (said !== undefined) return (names as ReadonlyMap<string, 'v' | 'epsilon' | 'sample' | 'flow'>).get(said)
  const isV =
    text.get('ss_v_parameterization') === 'True' ||
    /768-v|_768_v|-v-pred/.test(text.get('modelspec.architecture') ?? text.get('ss_base_model_version') ?? '')
  return isV ? 'v' : undefined
}

function trainingOf(text: ReadonlyMap<string, string>): Record<string, string> {
  const training: Record<string, string> = {}
  for (const [name, value] of text) {
    const fact = name.startsWith('ss_') ? name.slice(3) : ''
    if (facts.has(fact) && Object.keys(training).length < maxFacts) training[fact] = escapeText(value, line)
  }
  // diffusers writes peft's configuration of each part as JSON, peft itself as a file of its own.
  const adapter = parsed(text.get('lora_adapter_metadata'))
  if (typeof adapter === 'object' && adapter !== null)
    for (const [name, value] of Object.entries(adapter).slice(0, maxFacts))
      if (['string', 'number', 'boolean'].includes(typeof value) && Object.keys(training).length < maxFacts)
        Object.defineProperty(training, escapeText(name, 64), {
          value: escapeText(String(value), line),
          enumerable: true,
          configurable: true,
        })
  return training
}

/** Families by how ModelSpec and trainers call them. */
const claims: readonly [family: KnownFamily, name: RegExp][] = [
  ['sdxl', /^stable-diffusion-xl|^sdxl/i],
  ['sd3', /^stable-diffusion-v?3|^sd3/i],
  ['sd2', /^stable-diffusion-v2|^sd_v2/i],
  ['sd1', /^stable-diffusion-v1|^sd_v1|^darkroom-tiny/i],
  ['flux2', /^flux[-_.]?2/i],
  ['flux1', /^flux[-_.]?1|^flux$/i],
  ['qwen-image', /^qwen[-_]?image/i],
  ['z-image', /^z[-_]?image/i],
  ['chroma', /^chroma/i],
]

/** The family that an author names; undefined when none, or none that is known. */
export const claimedFamily = ({ architecture }: Metadata): KnownFamily | undefined =>
  architecture === undefined ? undefined : claims.find(([, name]) => name.test(architecture))?.[0]
