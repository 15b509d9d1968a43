/** What a sampler of ComfyUI is told: steps, guidance, seed, and the texts it is led by. */
import type { Graph, Node } from './comfyui-graph.ts'
import { fieldOf, type AskedPair } from './reading.ts'

export const samplerTypes = ['KSampler', 'KSamplerAdvanced', 'SamplerCustomAdvanced', 'SamplerCustom']

/** Steps, sampler, guidance, seed of a sampler's node. */
export function readSampler(graph: Graph, node: Node, target: AskedPair): void {
  const { reading } = graph
  const own = target === reading.input
  const isAdvanced = node.type === 'SamplerCustomAdvanced' || node.type === 'SamplerCustom'
  const sigmas = isAdvanced ? graph.linked(node, 'sigmas') : node
  const choice = isAdvanced ? graph.linked(node, 'sampler') : node
  const sampler = choice && graph.valueOf(choice, 'sampler_name')
  const schedule = sigmas && graph.valueOf(sigmas, 'scheduler')
  const names = { sampler: `${node.type} sampler_name`, schedule: `${node.type} scheduler` }
  const named = {
    sampler: typeof sampler === 'string' ? sampler : undefined,
    schedule: typeof schedule === 'string' ? schedule : undefined,
  }
  reading.takePair(target, named, names)
  if (!own) return
  if (sigmas) reading.take('steps', `${node.type} steps`, graph.valueOf(sigmas, 'steps'))
  const guider = isAdvanced ? (graph.linked(node, 'guider') ?? node) : node
  const guidance = graph.valueOf(guider, 'cfg')
  if (guidance !== undefined) reading.take('guidance', `${guider.type} cfg`, guidance)
  const noise = isAdvanced ? (graph.linked(node, 'noise') ?? node) : node
  const seed = graph.valueOf(noise, 'seed') ?? graph.valueOf(noise, 'noise_seed')
  if (seed !== undefined) reading.take('seed', `${noise.type} seed`, seed)
  for (const [input, usual] of [
    ['add_noise', 'enable'],
    ['start_at_step', 0],
    ['return_with_leftover_noise', 'disable'],
  ] as const)
    if (![undefined, usual].includes(fieldOf(node.inputs, input) as never)) graph.lost(node, 'a request draws all of its steps', input)
}

/** What guides it: a node of its own, or itself. */
export const guided = (graph: Graph, node: Node): Node => graph.linked(node, 'guider') ?? node

const encoders = ['CLIPTextEncode', 'CLIPTextEncodeSDXL', 'CLIPTextEncodeFlux', 'ConditioningZeroOut', 'FluxGuidance']

export function readPrompts(graph: Graph, sampler: Node): void {
  const from = guided(graph, sampler)
  const { reading } = graph
  const positive = promptOf(graph, graph.linked(from, 'positive') ?? graph.linked(from, 'conditioning'))
  if (positive !== undefined) reading.take('prompt', 'prompt', positive)
  const negative = promptOf(graph, graph.linked(from, 'negative'))
  if (negative !== undefined && negative !== '') reading.take('negativePrompt', 'negative prompt', negative)
}

export function promptOf(graph: Graph, from: Node | undefined): string | undefined {
  let node = graph.find(from, 'conditioning', encoders)
  if (node?.type === 'FluxGuidance') {
    graph.reading.take('guidance', 'FluxGuidance guidance', graph.valueOf(node, 'guidance'))
    node = graph.find(graph.linked(node, 'conditioning'), 'conditioning', encoders)
  }
  if (!node) return undefined
  if (node.type === 'ConditioningZeroOut') return ''
  readClip(graph, node)
  const input = { CLIPTextEncodeSDXL: 'text_g', CLIPTextEncodeFlux: 't5xxl' }[node.type] ?? 'text'
  const text = graph.valueOf(node, input)
  const other = { text_g: 'text_l', t5xxl: 'clip_l' }[input]
  if (other !== undefined && graph.valueOf(node, other) !== text)
    graph.lost(node, 'each text encoder of a model hears the whole prompt', other)
  return typeof text === 'string' ? text : undefined
}

/** Nodes that load a model, and which input names it. */
export const loaders: Record<string, string> = {
  CheckpointLoaderSimple: 'ckpt_name',
  CheckpointLoader: 'ckpt_name',
  UNETLoader: 'unet_name',
}

function readClip(graph: Graph, encoder: Node): void {
  graph.find(graph.linked(encoder, 'clip'), 'clip', [...Object.keys(loaders), 'CLIPLoader', 'DualCLIPLoader', 'TripleCLIPLoader'])
}
