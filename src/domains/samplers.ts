/**
 * Samplers and schedules by the names that AUTOMATIC1111's web UI gives them: the one table, which both sides read.
 * Names of ComfyUI and older ones lead to them. docs/samplers.md says what each computes.
 */
import { closest } from 'fastest-levenshtein'

/** How the steps of a picture are spread over the noise. Automatic: as the model's own configuration says. */
export const schedules = ['Automatic', 'Karras', 'Exponential', 'Beta', 'SGM Uniform', 'Simple', 'Normal', 'AYS'] as const
export type ScheduleName = (typeof schedules)[number]

export interface SamplerRow {
  /** Of diffusers, or of python/darkroom/solvers.py. */
  class: string
  /** What it is made with besides the model's configuration, in Python's names. */
  options?: Record<string, string | number | boolean>
  /** Names of others, besides those that differ in case, blanks and marks alone. */
  aliases?: readonly string[]
  /** Set for one that counts its own timesteps, and so takes Automatic alone: the nearest one that takes them all. */
  instead?: string
  /** Pairs that have a name of their own, by schedule. */
  named?: Partial<Record<ScheduleName, string>>
}

const multistep = 'DPMSolverMultistepScheduler'
const sde = { solver_order: 2, algorithm_type: 'sde-dpmsolver++' }

export const samplerTable = {
  Euler: { class: 'EulerDiscreteScheduler' },
  'Euler a': { class: 'EulerAncestralDiscreteScheduler' },
  'DPM++ 2M': { class: multistep, options: { solver_order: 2 }, named: { Karras: 'DPM++ 2M Karras' } },
  'DPM++ 2M Karras': { class: multistep, options: { solver_order: 2, use_karras_sigmas: true }, instead: 'DPM++ 2M' },
  DDIM: { class: 'DDIMScheduler', instead: 'Euler' },
  UniPC: { class: 'UniPCMultistepScheduler', aliases: ['uni_pc_bh2'] },
  Heun: { class: 'HeunDiscreteScheduler' },
  LCM: { class: 'LCMScheduler', instead: 'Euler a' },
  LMS: { class: 'Lms' },
  DPM2: { class: 'Dpm2' },
  'DPM2 a': { class: 'Dpm2', options: { ancestral: true } },
  'DPM++ 2S a': { class: 'DpmPlus2S', options: { ancestral: true } },
  'DPM++ SDE': { class: 'DpmPlusSde' },
  'DPM++ 2M SDE': { class: multistep, options: sde },
  'DPM++ 2M SDE Heun': { class: multistep, options: { ...sde, solver_type: 'heun' } },
  'DPM++ 3M SDE': { class: 'DpmPlus3MSde' },
  DEIS: { class: 'DEISMultistepScheduler' },
  iPNDM: { class: 'Ipndm' },
  'RES Multistep': { class: 'ResMultistep' },
  'RES Multistep a': { class: 'ResMultistep', options: { ancestral: true } },
  'Gradient Estimation': { class: 'GradientEstimation' },
  'SA-Solver': { class: 'SASolverScheduler' },
  DDPM: { class: 'DDPMScheduler', instead: 'Euler a' },
  PLMS: { class: 'PNDMScheduler', options: { skip_prk_steps: true }, instead: 'LMS', aliases: ['pndm'] },
  TCD: { class: 'TCDScheduler', instead: 'Euler a' },
} as const satisfies Record<string, SamplerRow>

export type SamplerName = keyof typeof samplerTable
export const samplers = Object.keys(samplerTable) as [SamplerName, ...SamplerName[]]

const rowOf = (sampler: SamplerName): SamplerRow => samplerTable[sampler]

/** The schedules that a sampler takes. */
export const schedulesOf = (sampler: SamplerName): readonly ScheduleName[] => (rowOf(sampler).instead ? ['Automatic'] : schedules)

/** The schedules of pairs that have a name of their own, by that name. */
const scheduleInName: ReadonlyMap<string, ScheduleName> = new Map(
  samplers.flatMap((name) => Object.entries(rowOf(name).named ?? {}).map(([schedule, own]) => [own, schedule as ScheduleName])),
)
/** Those that step over timesteps of their own. */
export const withoutSchedules = samplers.filter((name) => rowOf(name).instead && !scheduleInName.has(name))

const scheduleAliases: Record<string, ScheduleName> = { auto: 'Automatic', uniform: 'Normal', 'align your steps': 'AYS' }

/** `dpmpp_2m_sde_gpu`, `k_dpmpp_2m_sde` and `DPM++ 2M SDE` are one name. */
const loosened = (name: string): string =>
  name
    .toLowerCase()
    .replace(/^(k|sample)_/, '')
    .replace(/_gpu$/, '')
    .replaceAll('++', 'pp')
    .replaceAll('ancestral', 'a')
    .replaceAll(/[^a-z0-9]/g, '')

const samplersByAlias = new Map(samplers.flatMap((name) => (rowOf(name).aliases ?? []).map((alias) => [alias, name] as const)))
const samplersByName = new Map([...[...samplersByAlias].map(([alias, name]) => [loosened(alias), name] as const), ...loose(samplers)])
const schedulesByName = new Map([
  ...Object.entries(scheduleAliases).map(([alias, name]) => [loosened(alias), name] as const),
  ...loose(schedules),
])

function loose<Name extends string>(names: readonly Name[]): [string, Name][] {
  return names.map((name) => [loosened(name), name])
}

/** A sampler and, where the name says it too (`DPM++ 2M SDE Karras`), a schedule. */
export interface SamplerPair {
  sampler: SamplerName
  schedule?: ScheduleName
}

/** The sampler that a name means; undefined when it means none. */
export function samplerOf(name: string): SamplerPair | undefined {
  const wanted = loosened(name)
  const sampler = samplersByAlias.get(name.toLowerCase()) ?? samplersByName.get(wanted)
  if (sampler) return { sampler }
  for (const [ending, schedule] of schedulesByName) {
    const rest = wanted.endsWith(ending) ? samplersByName.get(wanted.slice(0, -ending.length)) : undefined
    if (rest) return { sampler: rest, schedule }
  }
  return undefined
}

/** The schedule that a name means; undefined when it means none. */
export const scheduleOf = (name: string): ScheduleName | undefined => schedulesByName.get(loosened(name))

/** In words: that there is no such sampler, and the nearest. */
export function noSampler(name: string): string {
  const nearest = samplersByName.get(closest(loosened(name), [...samplersByName.keys()])) ?? samplers[0]
  return `there is no sampler ${JSON.stringify(name.slice(0, 60))}; the nearest is ${nearest}; GET /v1/workflows/image-generation lists all`
}

/** In words: that there is no such schedule, and the nearest. */
export function noSchedule(name: string): string {
  const nearest = schedulesByName.get(closest(loosened(name), [...schedulesByName.keys()])) ?? schedules[0]
  return `there is no schedule ${JSON.stringify(name.slice(0, 60))}; the nearest is ${nearest}; offered are ${schedules.join(', ')}`
}

/**
 * The pair as a request keeps it. Automatic is no schedule, and a pair with a name of its own has that name: what draws
 * the same picture is the same request. A string says why there is no such pair.
 */
export function settle(
  { sampler, schedule: inName = scheduleInName.get(sampler) }: SamplerPair,
  asked?: ScheduleName,
): SamplerPair | string {
  const schedule = asked === undefined || asked === 'Automatic' ? inName : asked
  if (inName && schedule !== inName) return `the name of the sampler says ${inName}, so the schedule cannot be ${schedule}`
  if (schedule === undefined || schedule === 'Automatic' || scheduleInName.has(sampler)) return { sampler }
  const { instead, named } = rowOf(sampler)
  if (instead)
    return `${sampler} counts its own timesteps and takes no schedule but Automatic; the nearest that takes ${schedule} is ${instead}`
  const own = named?.[schedule]
  return own ? { sampler: own as SamplerName } : { sampler, schedule }
}
