/** Makes a ControlNet of one file: its tensors, and the configuration that goes with what they are. */
import { join } from 'node:path'
import { besideOf } from './composing.ts'
import { states } from './configs.ts'
import type { Entry } from './entry.ts'
import type { Made } from './made.ts'
import { zImageLayers } from './rules/adapters.ts'
import type { KnownFamily, Verdict } from './verdict.ts'

/** Folder of configurations of ControlNets within one of sets. */
const inSets = 'controlnet'
const names: Partial<Record<KnownFamily, string>> = {
  sd1: 'stable-diffusion-1',
  sd2: 'stable-diffusion-2',
  sdxl: 'stable-diffusion-xl',
  'z-image': 'z-image',
}
/** ControlNet++ ProMax knows two tasks more than the first Union. */
const tasksOfProMax = 8

/** Whether it is a ControlNet that is made here, as far as its kind goes. */
export const isControlMadeHere = ({ isFolder, verdict: { format, kind, reason, algorithms = [] } }: Entry): boolean =>
  !isFolder && kind === 'controlnet' && format === 'safetensors' && !reason && !algorithms.includes('lora')

function nameOf({ family, variants, figures }: Verdict): string | undefined {
  const name = family && names[family]
  if (family === 'z-image' && figures.layers !== zImageLayers) return undefined
  if (!name || !variants.includes('union')) return name
  return figures.modes === tasksOfProMax ? `${name}-union-promax` : `${name}-union`
}

/** What it is made of; null where no configuration is known. One beside it counts before those in `configs`. */
export async function composeControl({ path, files, verdict }: Entry, configs: readonly string[]): Promise<Made | null> {
  const name = nameOf(verdict)
  const [file] = files
  if (!file) return null
  for (const folder of [besideOf(path), ...(name === undefined ? [] : configs.map((root) => join(root, inSets, name)))]) {
    const [config] = await states(folder, ['config.json'])
    if (!config) continue
    return {
      parts: [{ name: '', folder, weights: { path, prefix: '' } }],
      files: [
        { ...file, path, role: 'network' },
        { ...config, role: 'config.json' },
      ],
    }
  }
  return null
}
