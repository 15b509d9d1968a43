/** The models that a step needs, made resident in the Python child before it runs, and told to it where they lie. */
import { isDeepStrictEqual } from 'node:util'
import type { StepProgress } from '../domains/operation.ts'
import type { Control, MemoryProfile, Preprocessor, WantedModel } from '../domains/values.ts'
import type { Catalogue } from '../models/catalogue.ts'
import { pinOf, type Entry } from '../models/entry.ts'
import { modelError } from '../models/errors.ts'
import { isBeside } from '../models/families.ts'
import { referenceTo } from '../models/own-vae.ts'
import { formatName } from '../models/quantisation.ts'
import { drawnFiles } from '../models/weights.ts'
import type { ModelCache } from './device/model-cache.ts'
import type { Call, Outcome } from './python/call.ts'
import type { ModelRef } from './python/protocol.ts'
import type { PythonChild } from './python/supervisor.ts'

/** More models than a child holds. */
const everyModel = 1000

export interface ResidencyParts {
  cache: ModelCache
  child: PythonChild
  memoryProfile: MemoryProfile | undefined
  models: Catalogue
  /** The model of that name with its hash, which is computed when it is not known. */
  hashed: (wanted: Pick<WantedModel, 'id' | 'kind'>) => Promise<Entry>
  /** Told before the first load. */
  requireRoom: () => Promise<void>
  finish: (call: Call<'model.ensure'>) => Promise<Outcome<'model.ensure'>>
  progress: (progress: StepProgress) => void
  note: (text: string) => void
}

/** A model in the child: as it was asked for, and as the child is told of it. */
interface Held {
  wanted: WantedModel
  ref: ModelRef
  /** What it was loaded from: its own files, and those of the VAE that decodes for it. */
  entries: Entry[]
  /** Of its own body, whatever VAE decodes for it. */
  bodyHash: string
  /** Of its files, for the receipt. */
  format: string
}

export interface Resident {
  models: Held[]
  /** The process that has them. */
  childPid: number | null
  wasResident: boolean
  /** That the loads took. */
  seconds: number
  /** That they read from the worker's cache, and from disk. */
  ramBytes: number
  diskBytes: number
}

/** What a load took and read. */
type Load = Pick<Resident, 'seconds' | 'ramBytes' | 'diskBytes'>

/** The child then holds what the pins say, or nothing of those names. What computes beside a model comes before it. */
async function makeResident(wanted: readonly WantedModel[], parts: ResidencyParts): Promise<Resident> {
  const resident: Resident = { models: [], childPid: parts.child.pid, wasResident: true, seconds: 0, ramBytes: 0, diskBytes: 0 }
  for (const each of networksOf(wanted).toReversed()) {
    const { load, ...held } = await ensure(each, parts)
    resident.models.unshift(held)
    resident.wasResident &&= load === undefined
    resident.seconds += load?.seconds ?? 0
    resident.ramBytes += load?.ramBytes ?? 0
    resident.diskBytes += load?.diskBytes ?? 0
  }
  return resident
}

/** What is patched into a model, such as a LoRA, is none in the child. */
const networksOf = (wanted: readonly WantedModel[]): readonly WantedModel[] =>
  wanted.filter(({ kind }) => kind === undefined || isBeside(kind))

/** What a call has had, with how it was placed. */
interface Had {
  resident: Resident
  memoryProfile: MemoryProfile | undefined
}
const hadBy = new WeakMap<Call, Had>()

/** To be told of each call that had all its models to its end. */
export const noteHad = (call: Call, had: Had): void => void hadBy.set(call, had)

/**
 * As `makeResident`; without asking the child where it has all of them: `last` is what the session's step before had of
 * it, and what was asked of it last may have been another session's step. One that it lets go of meanwhile it loads by
 * itself.
 */
export async function residentFor(wanted: readonly WantedModel[], parts: ResidencyParts, last: Resident | undefined): Promise<Resident> {
  const resident = last ?? hadLast(wanted, parts)
  const models = networksOf(wanted).flatMap((each) => resident?.models.find((held) => isDeepStrictEqual(held.wanted, each)) ?? [])
  const isKnown = resident !== undefined && resident.childPid === parts.child.pid && models.length === networksOf(wanted).length
  if (!isKnown) return makeResident(wanted, parts)
  await parts.requireRoom()
  return { models, childPid: resident.childPid, wasResident: true, seconds: 0, ramBytes: 0, diskBytes: 0 }
}

/** Undefined where it was placed in another way, or a name without a hash may mean other files by now. */
function hadLast(wanted: readonly WantedModel[], { child, memoryProfile }: ResidencyParts): Resident | undefined {
  const had = child.latest && hadBy.get(child.latest)
  const isPinned = wanted.every(({ bodyHash }) => bodyHash !== null)
  return isPinned && had?.memoryProfile === memoryProfile ? had?.resident : undefined
}

/**
 * To be asked when the child has loaded models: they are what their pins say.
 * @throws DarkroomError `model.missing`; then the child holds nothing of that name
 */
export async function requireUnchanged(
  { models: held }: Pick<Resident, 'models'>,
  { child, models }: Pick<ResidencyParts, 'child' | 'models'>,
): Promise<void> {
  for (const { wanted, entries } of held) {
    const known = await Promise.all(entries.map((entry) => models.isAsKnown(entry)))
    if (known.every(Boolean)) continue
    // It has loaded other bytes under this name.
    await child.start('memory.trim', { idleModels: everyModel }).outcome
    throw modelError('missing', `the files of model ${wanted.id} changed while they were loaded, and are looked at again`)
  }
}

/**
 * With a VAE that is not its own it is another model to the child. `load` is undefined where there was none.
 */
async function ensure(wanted: WantedModel, parts: ResidencyParts): Promise<Held & { load?: Load }> {
  const { cache, child, models, memoryProfile, hashed, requireRoom, finish, progress, note } = parts
  const { kind } = wanted
  const known = async (): Promise<Entry> => (kind === undefined ? models.here(wanted) : models.shelved({ ...wanted, kind }))
  const entry = wanted.bodyHash === null ? await hashed(wanted) : await known()
  const pin = pinOf(wanted.id, entry)
  const vae = wanted.vae && (await models.shelved({ ...wanted.vae, kind: 'vae' }))
  const ref = isBeside(kind)
    ? { ...pin, path: entry.path, family: kind, ...(entry.made && { parts: entry.made.parts }) }
    : referenceTo(wanted, entry, vae)
  const held = { wanted, ref, entries: [entry, ...(vae ? [vae] : [])], bodyHash: pin.bodyHash, format: formatName(entry.verdict) }
  await requireRoom()
  const loading = { progress: (far: StepProgress) => progress({ ...far, stage: 'load' }), note }
  const cacheable = { ...pin, kind: entry.verdict.kind, entry }
  const files = await cache.filesOf(cacheable)
  const outcome = await finish(child.start('model.ensure', { model: ref, files, weightBytes: bytesOf(entry, vae), memoryProfile }, loading))
  if (outcome.type !== 'result' || outcome.output.resident) return held
  await requireUnchanged({ models: [held] }, parts)
  // The cache has the model's own files alone.
  cache.loaded(cacheable, vae ? outcome.output.ramBytes > 0 : outcome.output.diskBytes === 0)
  const { seconds, ramBytes, diskBytes } = outcome.output
  return { ...held, load: { seconds, ramBytes, diskBytes } }
}

/** Of the files that a load reads: an own VAE takes the place of another part, which is not read. */
const bytesOf = (entry: Entry, vae: Entry | undefined): number =>
  [entry, ...(vae ? [vae] : [])].flatMap(drawnFiles).reduce((sum, { size }) => sum + size, 0)

/**
 * What of a step's input the child is told with places: its `model`, the ControlNets of its `control` with the networks
 * of their preprocessors, that of its own `preprocessor`, and the network that is its `upscaler`.
 */
export function withRefs(
  { model, control, upscaler, preprocessor, ...input }: Record<string, unknown>,
  { models }: Resident,
): Record<string, unknown> {
  const refOf = (isOf: (resident: Resident['models'][number]) => boolean): ModelRef | undefined => models.find(isOf)?.ref
  const bodyOf = (kind: WantedModel['kind'], { bodyHash }: Pick<WantedModel, 'bodyHash'>): ModelRef | undefined =>
    refOf(({ wanted, ref }) => wanted.kind === kind && ref.bodyHash === bodyHash)
  const steering = control as readonly Pick<Control, 'model' | 'preprocessor'>[] | undefined
  const seeing = (said: unknown): Record<string, unknown> => {
    const each = said as Preprocessor | undefined
    return { ...(each && { preprocessor: 'model' in each ? { ...each, model: bodyOf('preprocessor', each.model) } : each }) }
  }
  return {
    ...input,
    ...(model !== undefined && { model: refOf(({ wanted }) => wanted.kind === (model as WantedModel).kind) }),
    ...(upscaler !== undefined && {
      upscaler: typeof upscaler === 'string' ? upscaler : refOf(({ wanted }) => wanted.kind === 'upscaler'),
    }),
    ...seeing(preprocessor),
    ...(steering && {
      control: steering.map((each) => ({ ...each, model: bodyOf('controlnet', each.model), ...seeing(each.preprocessor) })),
    }),
  }
}
