/** What the steps of diffusion share. */
import { workerError } from '../../errors.ts'
import type { PythonResult } from '../operation.ts'
import type { WantedModel } from '../values.ts'

/**
 * What the files of a picture take at most, bytes: pixels, latents and the checkpoints that are being written, by the
 * pixel, and what does not grow with it.
 */
const bytesOfPixel = 16
const bytesOfRest = 8 << 20

/** A step on the device that needs its model there, and room for what it hands on. */
export const onDevice = {
  lane: 'gpu',
  attempts: 3,
  needs: ({ model, width = 0, height = 0 }: { model: WantedModel; width?: number; height?: number }) => ({
    models: [model],
    fileBytes: bytesOfRest + bytesOfPixel * width * height,
  }),
} as const

/** SHA-256 of a file that the child made. @throws DarkroomError `worker.protocol` when it made none of that name */
export function fileOf(result: PythonResult, name: string): string {
  const sha256 = result.files[name]
  if (sha256 === undefined) throw workerError('protocol', `the Python child answered without the file ${name}`)
  return sha256
}
