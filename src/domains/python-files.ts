/** Files that steps hand on from Python, whichever domain they are of. */
import { workerError } from '../errors.ts'
import type { PythonResult } from './operation.ts'

/**
 * What the files of a picture take at most, bytes: pixels, latents and the checkpoints that are being written, by the
 * pixel, and what does not grow with it.
 */
const bytesOfPixel = 16
const bytesOfRest = 8 << 20

/** Room for what a step hands on of a picture of this size. */
export const fileBytesOf = ({ width = 0, height = 0 }: { width?: number; height?: number }): number =>
  bytesOfRest + bytesOfPixel * width * height

/** SHA-256 of a file that the child made. @throws DarkroomError `worker.protocol` when it made none of that name */
export function fileOf(result: PythonResult, name: string): string {
  const sha256 = result.files[name]
  if (sha256 === undefined) throw workerError('protocol', `the Python child answered without the file ${name}`)
  return sha256
}
