/**
 * ComfyUI's `prompt`: the graph that was run, as `{ id: { class_type, inputs } }`, where an input is a value or the
 * output of another node, `[id, output]`. Read from the node that saved the picture upwards, by the stock nodes; what
 * another node did is told, and its way passed where one of its inputs goes on.
 */
import { Graph, type Node } from './comfyui-graph.ts'
import { readCanvas, readHires } from './comfyui-latents.ts'
import { guided, loaders, readPrompts, readSampler, samplerTypes } from './comfyui-sampler.ts'
import type { Reading } from './reading.ts'

/** @throws Error that says why the text is no graph, or has no sampler */
export function readGraph(text: string): Reading {
  const graph = new Graph(text)
  const { reading } = graph
  const [end] = graph.ends()
  const last = end
    ? graph.find(graph.linked(end, 'images'), 'image', samplerTypes, { VAEDecode: null, VAEDecodeTiled: null })
    : [...graph.all()].find(({ type }) => samplerTypes.includes(type))
  if (!last) throw new Error('its picture comes from no sampler that is understood')
  // Another sampler whose picture this one goes on with: the first of two passes.
  const before = readHires(graph, last)
  const first = before ?? last
  readSampler(graph, first, reading.input)
  readPrompts(graph, first)
  readModel(graph, first)
  readCanvas(graph, first)
  return reading
}

function readModel(graph: Graph, sampler: Node): void {
  const from = guided(graph, sampler)
  const loader = graph.find(graph.linked(from, 'model'), 'model', Object.keys(loaders))
  const name = loader && graph.valueOf(loader, loaders[loader.type] ?? '')
  if (typeof name !== 'string') return
  // A name here is its path below the folder, without its ending.
  graph.reading.input.model = name.replaceAll('\\', '/').replace(/\.(safetensors|sft|ckpt|pt|pth|bin|gguf)$/i, '')
}
