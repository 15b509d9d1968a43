import { workerError } from '../../errors.ts'
import type { PythonResult, Tools } from '../operation.ts'
import type { DecodeInput, DecodeOutput, DenoiseInput, DenoiseOutput, EncodeInput, EncodeOutput } from './schema.ts'

/** Text to conditioning. */
export async function encode(input: EncodeInput, tools: Tools): Promise<EncodeOutput> {
  return { conditioning: fileOf(await tools.python(input, {}), 'conditioning') }
}

/** Noise to latents, call by call, with checkpoints on the way. */
export async function denoise(input: DenoiseInput, tools: Tools): Promise<DenoiseOutput> {
  const { conditioning, ...request } = input
  return { latents: fileOf(await tools.python(request, { conditioning }), 'latents'), exactness: tools.exactness }
}

/** Latents to pixels. @throws DarkroomError `artifact.missing` when the latents are gone: the machine draws them again. */
export async function decode(input: DecodeInput, tools: Tools): Promise<DecodeOutput> {
  const { latents, ...request } = input
  return { pixels: fileOf(await tools.python(request, { latents }), 'pixels'), width: input.width, height: input.height }
}

function fileOf(result: PythonResult, name: string): string {
  const sha256 = result.files[name]
  if (sha256 === undefined) throw workerError('protocol', `the Python child answered without the file ${name}`)
  return sha256
}
