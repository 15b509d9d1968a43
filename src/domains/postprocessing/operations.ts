import { artifactError } from '../../errors.ts'
import type { Tools } from '../operation.ts'
import { writePng } from './png.ts'
import type { SaveInput, SaveOutput } from './schema.ts'

/** Pixels to a PNG with its own receipt. @throws DarkroomError `artifact.missing` when the pixels are gone: the machine draws them again. */
export async function save(input: SaveInput, tools: Tools): Promise<SaveOutput> {
  const pixels = await tools.artifacts.read(input.pixels)
  if (pixels.length !== input.width * input.height * 3) {
    throw artifactError('corrupt', `pixels ${input.pixels} hold ${pixels.length} bytes, not ${input.width} · ${input.height} · 3`)
  }
  const { request } = input
  const receipt = { workflow: 'image-generation@1', input: request, exactness: input.exactness }
  const png = writePng(pixels, input.width, input.height, { parameters: infotext(request), darkroom: JSON.stringify(receipt) })
  const sha256 = await tools.keep(png, 'image')
  return { sha256, mediaType: 'image/png', width: input.width, height: input.height, seed: request.seed, bytes: png.byteLength }
}

/** The `parameters` text as AUTOMATIC1111's web UI writes it, which other tools read: prompt, negative prompt, then one line of settings. */
function infotext(request: SaveInput['request']): string {
  const settings = [
    `Steps: ${request.steps}`,
    `Sampler: ${request.sampler}`,
    `CFG scale: ${request.guidance}`,
    `Seed: ${request.seed}`,
    `Size: ${request.width}x${request.height}`,
    `Model hash: ${request.model.bodyHash.slice(0, 10)}`,
    `Model: ${request.model.id}`,
  ]
  return [request.prompt, ...(request.negativePrompt ? [`Negative prompt: ${request.negativePrompt}`] : []), settings.join(', ')].join('\n')
}
