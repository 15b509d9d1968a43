/**
 * The weights in one folder, as diffusers, transformers and peft save them: one file or several shards, each in one or
 * more variants such as `fp16`. A variant is sound when all its shards are there and hold what their index says.
 */
import { basename, dirname } from 'node:path'
import type { Entry } from './entry.ts'
import type { FileState } from './found.ts'
import { readGguf } from './gguf.ts'
import { HeaderFault, quote, withFile, type Header, type Tensor } from './header.ts'
import { readJsonFile } from './json-file.ts'
import { readSafetensors } from './safetensors.ts'
import type { Reason } from './verdict.ts'

/** `diffusion_pytorch_model.fp16-00001-of-00002.safetensors`; older versions put the variant behind the number. */
const names =
  /^(diffusion_pytorch_model|pytorch_model|model|adapter_model|open_clip_pytorch_model)(?:\.([\w-]{1,32}?))?(?:-(\d{5})-of-(\d{5}))?(?:\.([\w-]{1,32}))?\.(safetensors|bin)$/
const indexes = /^(?:diffusion_pytorch_model|model)\.safetensors(?:\.([\w-]{1,32}))?\.index(?:\.([\w-]{1,32}))?\.json$/
/** Most files of weights of one folder: the largest models have some thirty shards, in two variants. */
const maxFiles = 512

/** One entry of a folder that may be opened: its name, and the path that a link on the way leads to. */
export type Resolve = (name: string) => Promise<string | undefined>

export interface Variant {
  /** `''` where files name none. */
  readonly name: string
  readonly files: readonly string[]
  readonly bytes: number
  /** Every tensor of its files; absent when it is not sound. */
  readonly header?: Header
  readonly reason?: Reason
}

export interface Weights {
  readonly variants: readonly Variant[]
  /** Pickles among the files, which are not opened. */
  readonly pickles: readonly string[]
}

export const isWeights = (name: string): boolean => names.test(name)

/**
 * Of a pickle among the weights of a folder: the name under which its tensors are looked for in safetensors
 * (transformers has two, `pytorch_model.bin` and `model.safetensors`), and its variant. Undefined for what is none.
 */
export function asSafetensors(name: string): { name: string; variant: string } | undefined {
  const [, , early, , , late, ending] = names.exec(name) ?? []
  if (ending !== 'bin') return undefined
  return { name: name.replace(/^pytorch_model/, 'model').replace(/bin$/, 'safetensors'), variant: early ?? late ?? '' }
}

/** Whatever is wrong is in a variant's `reason`; `at` is the folder's path within the model, `unet/` or empty. */
export async function readWeights(entries: readonly string[], resolve: Resolve, at: string): Promise<Weights> {
  const files = new Map<string, { name: string; shard: number; of: number }[]>()
  const pickles: string[] = []
  for (const name of entries.toSorted().slice(0, maxFiles)) {
    const [, , early, shard, of, late, ending] = names.exec(name) ?? []
    if (ending === 'bin') pickles.push(name)
    if (ending !== 'safetensors') continue
    const variant = early ?? late ?? ''
    const known = files.get(variant) ?? []
    files.set(variant, [...known, { name, shard: Number(shard ?? 1), of: Number(of ?? 1) }])
  }
  const found = entries.flatMap((name) => {
    const match = indexes.exec(name)
    return match ? [[match[1] ?? match[2] ?? '', name] as const] : []
  })
  // An index whose shards are all missing is a variant too, one that is not sound.
  for (const [variant] of found) if (!files.has(variant)) files.set(variant, [])
  const index = new Map(found)
  const variants: Variant[] = []
  for (const [name, parts] of files) variants.push(await readVariant(name, parts, index.get(name), resolve, at))
  return { variants, pickles }
}

async function readVariant(
  name: string,
  parts: readonly { name: string; shard: number; of: number }[],
  index: string | undefined,
  resolve: Resolve,
  at: string,
): Promise<Variant> {
  let files = parts.map((part) => part.name)
  let bytes = 0
  try {
    const placed = index === undefined ? undefined : await readIndex(index, resolve, at)
    const wanted = placed ? [...new Set(placed.values())].toSorted() : wholeOrShards(parts, at)
    const absent = wanted.filter((file) => !files.includes(file))
    if (absent.length > 0) throw missing(absent, wanted.length, at)
    files = wanted
    const tensors = new Map<string, Tensor>()
    let metadata: Header['metadata'] = new Map<string, string>()
    for (const file of files) {
      const header = await readHeader(file, resolve, at)
      if (metadata.size === 0) metadata = header.metadata
      for (const [tensor, value] of header.tensors) {
        if (tensors.has(tensor)) throw new HeaderFault('duplicate', at + file, `Two shards hold a tensor ${quote(tensor)}.`)
        if (placed && placed.get(tensor) !== file)
          throw new HeaderFault('layout', at + file, `Its index puts the tensor ${quote(tensor)} elsewhere or does not name it.`)
        tensors.set(tensor, value)
        bytes += value.bytes
      }
    }
    const lost = [...(placed?.keys() ?? [])].find((tensor) => !tensors.has(tensor))
    if (lost !== undefined)
      throw new HeaderFault('layout', at + (placed?.get(lost) ?? ''), `It lacks the tensor ${quote(lost)}, which its index puts there.`)
    return { name, files, bytes, header: { tensors, metadata } }
  } catch (error) {
    if (!(error instanceof HeaderFault)) throw error
    return { name, files, bytes, reason: error.reason }
  }
}

/** Without an index: the whole file, or shards of which all numbers up to the last must be there. */
function wholeOrShards(parts: readonly { name: string; shard: number; of: number }[], at: string): string[] {
  // A whole file beside shards is the same weights once more.
  const whole = parts.find(({ of }) => of === 1)
  if (whole) return [whole.name]
  const [first] = parts
  if (!first) return []
  const astray = parts.find(({ shard, of }) => shard < 1 || shard > of)
  if (astray) throw new HeaderFault('layout', at + astray.name, `${quote(astray.name)} is no shard of ${astray.of}.`)
  const numbers = new Set(parts.map(({ shard }) => shard))
  // The number of shards is a stranger's: only as many are named as a sentence holds.
  const absent = Array.from({ length: Math.min(first.of, maxFiles) }, (_, i) => i + 1)
    .filter((n) => !numbers.has(n))
    .map((n) => first.name.replace(/-\d{5}-of-/, `-${String(n).padStart(5, '0')}-of-`))
  if (absent.length > 0) throw missing(absent, first.of, at)
  return parts.map(({ name }) => name)
}

function missing(absent: readonly string[], of: number, at: string): HeaderFault {
  const told = absent.slice(0, 3).map(quote).join(', ') + (absent.length > 3 ? ` and ${absent.length - 3} more` : '')
  return new HeaderFault(
    'weights_missing',
    `${at}${absent[0]}`,
    `${absent.length} of its ${of} shards ${absent.length === 1 ? 'is' : 'are'} missing: ${told}.`,
  )
}

/** Which file each tensor is in. */
async function readIndex(name: string, resolve: Resolve, at: string): Promise<Map<string, string>> {
  const field = at + name
  const json = await readJsonFile(await opened(name, resolve, at), field)
  const map = Object.hasOwn(json, 'weight_map') ? json['weight_map'] : undefined
  if (typeof map !== 'object' || map === null || Array.isArray(map)) throw new HeaderFault('config', field, `${field} has no “weight_map”.`)
  const placed = new Map<string, string>()
  for (const [tensor, file] of Object.entries(map)) {
    if (typeof file !== 'string' || !names.test(file))
      throw new HeaderFault('config', field, `${field} puts a tensor into ${quote(String(file))}, which is no name of a shard.`)
    placed.set(tensor, file)
  }
  if (placed.size === 0) throw new HeaderFault('config', field, `${field} names no tensors.`)
  return placed
}

/** @throws HeaderFault whose field is the file */
async function readHeader(name: string, resolve: Resolve, at: string): Promise<Header> {
  const path = await opened(name, resolve, at)
  try {
    return await withFile(path, async (file) => {
      if (file.size === 0) throw new HeaderFault('empty', 'size', `It is empty.`)
      const head = (await file.read(0, Math.min(200, file.size))).toString('latin1')
      if (head.startsWith('version https://git-lfs'))
        throw new HeaderFault('lfs_pointer', 'content', 'It is a git-lfs pointer, not the file itself.')
      return head.startsWith('GGUF') ? await readGguf(file) : await readSafetensors(file)
    })
  } catch (error) {
    if (!(error instanceof HeaderFault)) throw error
    throw new HeaderFault(error.reason.code, at + name, `${at}${name}: ${error.reason.message}`)
  }
}

/** @throws HeaderFault `link` when the entry leads out of what may be opened */
export async function opened(name: string, resolve: Resolve, at: string): Promise<string> {
  const path = await resolve(name)
  if (path === undefined)
    throw new HeaderFault('link', at + name, `${at}${name} is a link that leads nowhere, or out of the model folders.`)
  return path
}

/** The variant that is loaded where none is named: the one without a name, else the first that is sound. */
export const preferred = (weights: Weights): Variant | undefined =>
  weights.variants.find(({ name, header }) => name === '' && header) ?? weights.variants.find(({ header }) => header)

/**
 * Of a model's files those with the weights that are drawn with: of one file that one, and others that it is made of;
 * of a folder, in each of its parts, the variant that is loaded.
 */
export function drawnFiles({ isFolder, files, made }: Pick<Entry, 'isFolder' | 'files' | 'made'>): FileState[] {
  if (made) return made.files.filter(({ path }) => made.parts.some(({ weights }) => weights?.path === path))
  if (!isFolder) return files.slice(0, 1)
  const parts = new Map<string, { variant: string; isWhole: boolean; file: FileState }[]>()
  for (const file of files) {
    const folder = dirname(file.path)
    const [, , early, shard, , late, ending] = names.exec(basename(file.path)) ?? []
    if (ending !== 'safetensors') continue
    const part = parts.get(folder) ?? []
    part.push({ variant: early ?? late ?? '', isWhole: shard === undefined, file })
    parts.set(folder, part)
  }
  // A folder that is one network has its weights beside its configuration; one of a pipeline none that is drawn with.
  if (parts.size > 1) parts.delete('.')
  return [...parts.values()].flatMap((part) => {
    const variant = part.some((each) => each.variant === '') ? '' : part.map((each) => each.variant).toSorted()[0]
    const chosen = part.filter((each) => each.variant === variant)
    const whole = chosen.find(({ isWhole }) => isWhole)
    return (whole ? [whole] : chosen).map(({ file }) => file)
  })
}

/** Why there is nothing to load; undefined when there is. */
export function whyNone(weights: Weights, at: string): Reason | undefined {
  if (preferred(weights)) return undefined
  const reason = weights.variants.find(({ reason: found }) => found)?.reason
  if (reason) return reason
  const [pickle] = weights.pickles
  const where = at === '' ? 'The folder' : at
  if (pickle !== undefined)
    return new HeaderFault(
      'pickle',
      at + pickle,
      `${where} has its weights as pickles only: ${weights.pickles.slice(0, 3).map(quote).join(', ')}.`,
    ).reason
  return new HeaderFault('weights_missing', at || '.', `${where} has no weights.`).reason
}
