/** ComfyUI's `prompt`, as nodes that can be followed upwards. */
import { fieldOf, isFields, jsonOf, Reading, textOf, type Fields } from './reading.ts'

/** Nodes that are looked at, at most. */
const mostNodes = 5000

export interface Node {
  id: string
  type: string
  inputs: Fields
}

/** What an unknown node may go on with, by what is followed. */
const ways = {
  image: ['images', 'image', 'pixels', 'samples', 'latent_image'],
  latent: ['latent_image', 'samples', 'latent'],
  model: ['model'],
  conditioning: ['conditioning', 'positive', 'conditioning_1', 'conditioning_to'],
  clip: ['clip'],
} as const
export type Way = keyof typeof ways

export class Graph {
  readonly reading = new Reading('comfyui')
  readonly #nodes = new Map<string, Node>()
  /** Nodes that were told of, and those that nothing is lost of. */
  readonly #told = new Set<string>()

  /** @throws Error that says why it is no graph */
  constructor(text: string) {
    const json = jsonOf(text)
    if (!isFields(json)) throw new Error('it is no object of JSON')
    for (const [id, node] of Object.entries(json).slice(0, mostNodes)) {
      const [type, inputs] = [textOf(node, 'class_type'), fieldOf(node, 'inputs')]
      if (type !== undefined) this.#nodes.set(id, { id, type, inputs: isFields(inputs) ? inputs : {} })
    }
    if (this.#nodes.size === 0) throw new Error('it has no node with a `class_type`')
  }

  /** The node that an input comes from. */
  linked(node: Node, input: string): Node | undefined {
    const link = fieldOf(node.inputs, input)
    return Array.isArray(link) && typeof link[0] === 'string' ? this.#nodes.get(link[0]) : undefined
  }

  /** A value that stands in the node; one that another node computes is lost. */
  valueOf(node: Node, input: string): unknown {
    const value = fieldOf(node.inputs, input)
    if (!Array.isArray(value)) return value
    const from = this.linked(node, input)
    // Nodes that hold one value have it as `value`, or as what it is.
    const held = from && ['value', 'string', 'text', 'int', 'float', 'noise_seed', 'seed'].map((name) => fieldOf(from.inputs, name))
    const found = held?.find((each) => typeof each === 'string' || typeof each === 'number')
    if (found === undefined) this.lost(node, `${input} comes from ${from ? from.type : 'a node that is not there'}`, input)
    return found
  }

  /**
   * The first node of these types at or above one, on one way; nodes between are told of, unless they are `passed`. A
   * circle ends it.
   */
  find(from: Node | undefined, way: Way, types: readonly string[], passed: Record<string, string | null> = {}): Node | undefined {
    const seen = new Set<Node>()
    let node = from
    while (node && !seen.has(node)) {
      if (types.includes(node.type)) return node
      seen.add(node)
      const why = Object.hasOwn(passed, node.type) ? passed[node.type] : 'it is none of the nodes that are understood'
      if (why) this.lost(node, why)
      const at: Node = node
      node = ways[way].map((input) => this.linked(at, input)).find((next) => next !== undefined)
    }
    return undefined
  }

  lost(node: Node, why: string, input?: string): void {
    const key = `${node.id}\n${input ?? ''}`
    if (this.#told.has(key)) return
    this.#told.add(key)
    const name = `node ${node.id}, ${node.type}${input === undefined ? '' : `, ${input}`}`
    this.reading.lost(name, input === undefined ? node.inputs : (fieldOf(node.inputs, input) ?? null), why)
  }

  /** Those that keep a picture, in the order of their numbers. */
  ends(): Node[] {
    const all = [...this.#nodes.values()].filter(({ type }) => ['SaveImage', 'PreviewImage', 'SaveAnimatedWEBP'].includes(type))
    return all.toSorted((a, b) => Number(a.type !== 'SaveImage') - Number(b.type !== 'SaveImage') || Number(a.id) - Number(b.id))
  }

  all(): Iterable<Node> {
    return this.#nodes.values()
  }
}
