/** Families of models: each is loaded and computed by one class of `python/darkroom/families/`, under this name. */
import type { Kind, KnownFamily } from './verdict.ts'

/** What draws well with a model that says nothing of its own; `cells`: latent cells of a side. */
interface Usual {
  cells: number
  steps: number
  guidance: number
  sampler: string
}

export const usual = {
  sd1: { cells: 64, steps: 20, guidance: 7, sampler: 'DDIM' },
  sdxl: { cells: 128, steps: 30, guidance: 5, sampler: 'Euler a' },
  'sdxl-refiner': { cells: 128, steps: 30, guidance: 5, sampler: 'Euler a' },
  flux1: { cells: 128, steps: 28, guidance: 3.5, sampler: 'Euler' },
  flux2: { cells: 128, steps: 50, guidance: 4, sampler: 'Euler' },
  'qwen-image': { cells: 166, steps: 50, guidance: 4, sampler: 'Euler' },
  sd3: { cells: 128, steps: 28, guidance: 4.5, sampler: 'Euler' },
  'z-image': { cells: 128, steps: 50, guidance: 5, sampler: 'Euler' },
} as const satisfies Record<string, Usual>
export type Family = keyof typeof usual
export const families = Object.keys(usual) as [Family, ...Family[]]

/** Kinds of models that are loaded beside one that draws, or alone; Python's table has them by these names. */
export const besides = ['controlnet', 'upscaler', 'preprocessor'] as const
export const isBeside = (kind: Kind | undefined): kind is (typeof besides)[number] =>
  (besides as readonly (Kind | undefined)[]).includes(kind)
/** By which of Python's classes a model of that kind is loaded; none where it only changes another one. */
export const loadedBy = (kind: Kind): readonly Loaded[] =>
  isBeside(kind) ? [kind] : kind === 'checkpoint' || kind === 'diffusion-model' ? families : []
export const loadable = [...families, ...besides] as const
export type Loaded = (typeof loadable)[number]
/** Families whose networks ControlNets steer here; those of transformers act in one way, `balanced`. */
export const steered: readonly KnownFamily[] = ['sd1', 'sd2', 'sdxl', 'sd3', 'flux1', 'qwen-image', 'z-image']
export const steeredTransformers: readonly KnownFamily[] = ['sd3', 'flux1', 'qwen-image', 'z-image']

/** Samplers that families with flow matching draw with; Python's table is compared with this one by a test. */
export const flowSamplers = ['Euler', 'Heun', 'LCM'] as const

/** By which class a family that detection knows is drawn; what is not here cannot be drawn yet. */
export const drawnBy: Partial<Record<KnownFamily, Family>> = {
  sd1: 'sd1',
  sd2: 'sd1',
  sdxl: 'sdxl',
  flux1: 'flux1',
  flux2: 'flux2',
  'qwen-image': 'qwen-image',
  sd3: 'sd3',
  'z-image': 'z-image',
}

/** Families with a step cache, in the class `fast`; Python's are compared with these by a test. */
export const stepCached = ['flux1', 'flux2', 'qwen-image', 'sd3', 'z-image'] as const satisfies readonly Family[]

/** Families by the names that people use. */
export const familyNames: Record<KnownFamily, string> = {
  sd1: 'Stable Diffusion 1',
  sd2: 'Stable Diffusion 2',
  sdxl: 'Stable Diffusion XL',
  sd3: 'Stable Diffusion 3',
  flux1: 'FLUX.1',
  flux2: 'FLUX.2',
  'z-image': 'Z-Image',
  'qwen-image': 'Qwen-Image',
  chroma: 'Chroma',
  lumina2: 'Lumina 2',
  sana: 'Sana',
  auraflow: 'AuraFlow',
  hidream: 'HiDream',
  cascade: 'Stable Cascade',
  pixart: 'PixArt',
  wan: 'Wan',
  'hunyuan-video': 'HunyuanVideo',
  'ltx-video': 'LTX-Video',
}
