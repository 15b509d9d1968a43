/** Families of models: each is loaded and computed by one class of `python/darkroom/families/`, under this name. */
import type { KnownFamily } from './verdict.ts'

export const families = ['sd1'] as const
export type Family = (typeof families)[number]

/** By which class a family that detection knows is drawn; what is not here cannot be drawn yet. */
export const drawnBy: Partial<Record<KnownFamily, Family>> = { sd1: 'sd1', sd2: 'sd1' }

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
