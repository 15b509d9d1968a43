/** What a sampler of ComfyUI begins from: nothing, a picture, or what another sampler drew. */
import type { upscalers } from '../../values.ts'
import type { Graph, Node } from './comfyui-graph.ts'
import { promptOf, readSampler, samplerTypes } from './comfyui-sampler.ts'
import { fieldOf } from './reading.ts'

const empty = ['EmptyLatentImage', 'EmptySD3LatentImage', 'EmptyFlux2LatentImage', 'EmptyHunyuanLatentVideo']
const enlargers = ['LatentUpscale', 'LatentUpscaleBy', 'ImageScale', 'ImageScaleBy']

type Upscaler = (typeof upscalers)[number]
const methods: Record<string, { latent?: Upscaler; image?: Upscaler }> = {
  'nearest-exact': { latent: 'latent-nearest', image: 'nearest' },
  bilinear: { latent: 'latent' },
  bicubic: { latent: 'latent-bicubic', image: 'bicubic' },
  lanczos: { image: 'lanczos' },
}

/** Width, height, and how much of a picture is drawn over. */
export function readCanvas(graph: Graph, sampler: Node): void {
  const { reading } = graph
  const from = graph.linked(sampler, 'latent_image')
  const node = graph.find(from, 'latent', [...empty, 'VAEEncode', 'VAEEncodeForInpaint'])
  if (!node) return
  if (empty.includes(node.type)) {
    reading.take('width', `${node.type} width`, graph.valueOf(node, 'width'))
    reading.take('height', `${node.type} height`, graph.valueOf(node, 'height'))
    const count = fieldOf(node.inputs, 'batch_size')
    if (![undefined, 1].includes(count as never))
      graph.lost(node, 'a picture is asked for by itself, and the first of a batch is this one', 'batch_size')
    return
  }
  graph.lost(graph.linked(node, 'pixels') ?? node, 'it names a picture of that program: send it here, and name it as `picture`')
  graph.lost(sampler, 'it is said of a picture that the text does not name: send that picture too', 'denoise')
}

/**
 * The first of two passes, when the last sampler goes on with what another one drew, larger; what the last one does
 * stands in `hires` then.
 */
export function readHires(graph: Graph, last: Node): Node | undefined {
  const passed = { VAEEncode: null, VAEDecode: null, VAEEncodeTiled: null, VAEDecodeTiled: null }
  // Looked for first: a way that ends in no sampler is told by whoever reads the canvas.
  if (!reaches(graph, last)) return undefined
  const enlarger = graph.find(graph.linked(last, 'latent_image'), 'image', enlargers, passed)
  const first = enlarger && graph.find(graph.linked(enlarger, 'samples') ?? graph.linked(enlarger, 'image'), 'image', samplerTypes, passed)
  if (!first) return undefined
  const { reading } = graph
  const hires: NonNullable<typeof reading.input.hires> = {}
  reading.input.hires = hires
  const method = methods[String(graph.valueOf(enlarger, 'upscale_method'))]
  const upscaler = enlarger.type.startsWith('Latent') ? method?.latent : method?.image
  if (upscaler) hires.upscaler = upscaler
  else graph.lost(enlarger, 'there is no such upscaler', 'upscale_method')
  const scale = graph.valueOf(enlarger, 'scale_by')
  const [width, height] = [graph.valueOf(enlarger, 'width'), graph.valueOf(enlarger, 'height')]
  if (typeof scale === 'number') hires.scale = scale
  if (typeof width === 'number' && typeof height === 'number') Object.assign(hires, { width, height })
  const [steps, strength] = [graph.valueOf(last, 'steps'), graph.valueOf(last, 'denoise')]
  if (typeof steps === 'number') hires.steps = steps
  if (typeof strength === 'number') hires.strength = strength
  readSampler(graph, last, hires)
  const [prompt, own] = [promptOf(graph, graph.linked(last, 'positive')), promptOf(graph, graph.linked(first, 'positive'))]
  if (prompt !== undefined && prompt !== own) hires.prompt = prompt
  return first
}

/** Whether there is an enlarger, and a sampler above it. */
function reaches(graph: Graph, last: Node): boolean {
  const seen = new Set<Node>()
  let isEnlarged = false
  for (let node = graph.linked(last, 'latent_image'); node && !seen.has(node);) {
    if (isEnlarged && samplerTypes.includes(node.type)) return true
    isEnlarged ||= enlargers.includes(node.type)
    seen.add(node)
    const at: Node = node
    node = ['samples', 'latent_image', 'pixels', 'image', 'images']
      .map((input) => graph.linked(at, input))
      .find((next) => next !== undefined)
  }
  return false
}
