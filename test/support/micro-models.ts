/** Models of random weights that really draw, in the layout of their families: `python/tests/micro.py` makes them. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { root } from '../../src/config.ts'
import { interpreter } from './child.ts'

const run = promisify(execFile)

/** Families as that file names them. */
export type MicroFamily = 'sd1' | 'sd2' | 'sdxl' | 'sdxl-inpainting' | 'sdxl-refiner' | MicroFlowFamily
/** Those of `python/tests/micro_flow.py`: 8 pixels a latent cell. */
const flow = ['flux1', 'flux2', 'qwen-image', 'sd3', 'z-image'] as const
export type MicroFlowFamily = (typeof flow)[number]
const maker = (family: MicroFamily): string => ((flow as readonly string[]).includes(family) ? 'micro_flow.py' : 'micro.py')

/** Writes `<folder>/<family>`, some hundred kilobytes each; with a UNet 4 pixels a latent cell, 16 tokens a prompt. */
export async function makeMicroModels(folder: string, ...families: MicroFamily[]): Promise<void> {
  for (const family of families) await run(interpreter(), [join(root, 'python/tests', maker(family)), family, join(folder, family)])
}

/** Writes `<folder>/preprocessors/<name>`, some hundred kilobytes each, by `python/tests/micro_preprocessors.py`. */
export async function makeMicroPreprocessors(
  folder: string,
  ...names: ('dpt' | 'depth-anything' | 'segformer' | 'upernet')[]
): Promise<void> {
  await run(interpreter(), [join(root, 'python/tests/micro_preprocessors.py'), join(folder, 'preprocessors'), ...names])
}
