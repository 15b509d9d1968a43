/**
 * Where the states of a machine stand in its drawing. Each state with others inside is laid out by itself, in columns
 * by the longest way from its start, and then is one box among its neighbours.
 */
import type { Graph, GraphState as State } from './diagram.ts'

export interface Box {
  id: string
  name: string
  type: State['type']
  isFailure: boolean
  steps: string[]
  /** Names from the outermost state to it, joined by dots. */
  path: string
  isOuter: boolean
  depth: number
  x: number
  y: number
  width: number
  height: number
}

export interface Drawing {
  width: number
  height: number
  /** Room over the boxes for edges that leap over some. */
  above: number
  boxes: Box[]
  edges: { path: string; title: string }[]
}

const [character, padding, gapX, gapY, head, line, lane] = [7, 14, 40, 16, 26, 15, 11] as const

interface Node extends Box {
  inside: Node[]
  /** Place in the state around it. */
  dx: number
  dy: number
}

type Edge = readonly [from: string, to: string]

export function layOut({ root, transitions }: Graph): Drawing {
  const parents = new Map<string, string>()
  const nodes = new Map<string, Node>()
  const nodeOf = (state: State, depth: number, around: string): Node => {
    for (const child of state.states) parents.set(child.id, state.id)
    const path = depth === 0 ? '' : `${around && `${around}.`}${state.name}`
    const inside = state.states.map((child) => nodeOf(child, depth + 1, path))
    const node: Node = {
      ...state,
      path,
      isOuter: inside.length > 0,
      depth,
      inside,
      x: 0,
      y: 0,
      dx: 0,
      dy: 0,
      width: 0,
      height: 0,
    }
    nodes.set(state.id, node)
    const edges = transitions.flatMap(({ from, to }): Edge[] => {
      const [a, b] = [lift(from, state.id, parents), lift(to, state.id, parents)]
      return a !== undefined && b !== undefined && a !== b ? [[a, b]] : []
    })
    arrange(node, lift(state.initial ?? '', state.id, parents), edges)
    return node
  }
  const whole = nodeOf(root, 0, '')
  place(whole, 0, 0)
  const boxes = [...nodes.values()].filter((node) => node !== whole).toSorted((a, b) => a.depth - b.depth)
  const lanes: Lanes = { above: 0, below: 0, top: 0, bottom: whole.height }
  const seen = new Set<string>()
  const edges = transitions.flatMap(({ from, to, on, guard }) => {
    const [a, b] = [nodes.get(from), nodes.get(to)]
    const key = `${from} ${to}`
    if (!a || !b || a === b || a === whole || holds(a, b) || holds(b, a) || seen.has(key)) return []
    seen.add(key)
    return [{ path: route(a, b, lanes, boxes), title: `${a.name} → ${b.name}: ${on}${guard === null ? '' : ` if ${guard}`}` }]
  })
  return { width: whole.width, height: lanes.bottom, above: -lanes.top, boxes, edges }
}

/** The child of `around` that is the state, or holds it. */
function lift(id: string, around: string, parents: ReadonlyMap<string, string>): string | undefined {
  for (let at: string | undefined = id; at !== undefined; at = parents.get(at)) if (parents.get(at) === around) return at
  return undefined
}

/** Gives a state its size, and those inside their places in it. */
function arrange(node: Node, start: string | undefined, edges: readonly Edge[]): void {
  const { inside, name, steps } = node
  if (inside.length === 0) {
    node.width = Math.max(64, ...[name, ...steps].map((text) => text.length * character + 2 * 10))
    node.height = head + steps.length * line
    return
  }
  const ranks = ranksOf(
    inside.map(({ id }) => id),
    start,
    edges,
  )
  if (node.type !== 'parallel') {
    const last = Math.max(...ranks.values())
    for (const child of inside) if (child.type === 'final') ranks.set(child.id, last)
  }
  const columns: Node[][] = []
  for (const child of inside) (columns[node.type === 'parallel' ? 0 : (ranks.get(child.id) ?? 0)] ??= []).push(child)
  const heights = columns.map((column) => column.reduce((sum, child) => sum + child.height + gapY, -gapY))
  const tallest = Math.max(...heights)
  let x = padding
  columns.forEach((column, i) => {
    const width = Math.max(...column.map((child) => child.width))
    let y = (node.depth === 0 ? padding : head + 4) + (tallest - (heights[i] ?? 0)) / 2
    for (const child of column) {
      Object.assign(child, { dx: x + (width - child.width) / 2, dy: y })
      y += child.height + gapY
    }
    x += width + gapX
  })
  const back = edges.filter(([a, b]) => (ranks.get(a) ?? 0) >= (ranks.get(b) ?? 0)).length
  node.width = x - gapX + padding
  node.height = (node.depth === 0 ? padding : head + 4) + tallest + padding + Math.min(back, 3) * lane
}

/** The longest way from the start to each, over the edges that do not lead back. */
function ranksOf(all: readonly string[], start: string | undefined, edges: readonly Edge[]): Map<string, number> {
  const forward: Edge[] = []
  const state = new Map<string, 'open' | 'done'>()
  const visit = (id: string): void => {
    state.set(id, 'open')
    for (const edge of edges) {
      if (edge[0] !== id || state.get(edge[1]) === 'open') continue
      forward.push(edge)
      if (!state.has(edge[1])) visit(edge[1])
    }
    state.set(id, 'done')
  }
  for (const id of start === undefined ? all : [start, ...all]) if (!state.has(id)) visit(id)
  const ranks = new Map(all.map((id) => [id, 0]))
  for (let n = 0; n < all.length; n++) for (const [a, b] of forward) ranks.set(b, Math.max(ranks.get(b) ?? 0, (ranks.get(a) ?? 0) + 1))
  return ranks
}

function place(node: Node, x: number, y: number): void {
  Object.assign(node, { x, y })
  for (const child of node.inside) place(child, x + child.dx, y + child.dy)
}

const holds = (outer: Box, inner: Box): boolean =>
  inner.x >= outer.x &&
  inner.y >= outer.y &&
  inner.x + inner.width <= outer.x + outer.width &&
  inner.y + inner.height <= outer.y + outer.height

/** Edges that leap over boxes, and those that lead back, each on a lane of its own; and how far out they come. */
interface Lanes {
  above: number
  below: number
  top: number
  bottom: number
}

function route(a: Box, b: Box, lanes: Lanes, boxes: readonly Box[]): string {
  const [middleA, middleB] = [a.y + a.height / 2, b.y + b.height / 2]
  if (b.x >= a.x + a.width) {
    const [from, to] = [a.x + a.width, b.x]
    const isCrossed = boxes.some((box) => box.x > from && box.x + box.width < to && !box.isOuter && isHit(box, from, middleA, to, middleB))
    if (!isCrossed) {
      const bend = (from + to) / 2
      return `M${from} ${middleA}C${bend} ${middleA} ${bend} ${middleB} ${to} ${middleB}`
    }
    // Over the top of what stands between, on a lane of its own.
    const top = Math.min(a.y, b.y) - 10 - lane * (lanes.above++ % 4)
    lanes.top = Math.min(lanes.top, top - 4)
    const [x1, x2] = [a.x + a.width * 0.7, b.x + b.width * 0.3]
    return `M${x1} ${a.y}V${top + 6}Q${x1} ${top} ${x1 + 6} ${top}H${x2 - 6}Q${x2} ${top} ${x2} ${top + 6}V${b.y}`
  }
  // Back: below both.
  const low = Math.max(a.y + a.height, b.y + b.height) + 8 + lane * (lanes.below++ % 3)
  lanes.bottom = Math.max(lanes.bottom, low + 4)
  const [x1, x2] = [a.x + a.width * 0.4, b.x + b.width * 0.6]
  const side = x2 < x1 ? -6 : 6
  return `M${x1} ${a.y + a.height}V${low - 6}Q${x1} ${low} ${x1 + side} ${low}H${x2 - side}Q${x2} ${low} ${x2} ${low - 6}V${b.y + b.height}`
}

/** Whether the line between two points passes a box. */
function isHit(box: Box, x1: number, y1: number, x2: number, y2: number): boolean {
  const at = (x: number): number => y1 + ((y2 - y1) * (x - x1)) / (x2 - x1)
  const ends = [at(box.x), at(box.x + box.width)]
  return Math.max(...ends) > box.y - 4 && Math.min(...ends) < box.y + box.height + 4
}
