/** The largest picture that a worker draws: what its device carries so that a pause or a cancel is soon heard. */
import type { Config } from '../../config.ts'
import type { PictureLimits } from '../../domains/device/status.ts'

/** Latent cells: 1024² pixels of a model with cells of 8 × 8 on a CPU, all that a request may ask for on a GPU. */
const usualCells = { cpu: 16_384, gpu: 262_144 }
/** Steps that a picture of the largest size may have. */
const usualSteps = 200

export function pictureLimits({ device, maxCells, maxCellSteps }: Pick<Config, 'device' | 'maxCells' | 'maxCellSteps'>): PictureLimits {
  const cells = maxCells ?? (device.startsWith('cpu') ? usualCells.cpu : usualCells.gpu)
  return { cells, cellSteps: maxCellSteps ?? cells * usualSteps }
}
