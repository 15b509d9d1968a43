import { describe, expect, it } from 'vitest'
import { graphOf } from '../../src/engine/diagram.ts'
import { layOut, type Box } from '../../src/engine/layout.ts'
import { workflows } from '../../src/workflows/index.ts'

const areApart = (a: Box, b: Box): boolean => a.x + a.width <= b.x || b.x + b.width <= a.x || a.y + a.height <= b.y || b.y + b.height <= a.y
const holds = (outer: Box, inner: Box): boolean =>
  inner.x >= outer.x &&
  inner.y >= outer.y &&
  inner.x + inner.width <= outer.x + outer.width &&
  inner.y + inner.height <= outer.y + outer.height

describe('the drawing of a machine', () => {
  it.each(workflows.map(({ name, machine }) => ({ name, graph: graphOf(machine) })))(
    'of $name: no box lies on another, each inside its own',
    ({ graph }) => {
      const { boxes, edges, width, height, above } = layOut(graph)
      for (const [i, a] of boxes.entries()) {
        expect(holds({ ...a, x: 0, y: -above, width, height: height + above }, a)).toBe(true)
        for (const b of boxes.slice(i + 1)) {
          const isInside = b.path.startsWith(`${a.path}.`)
          expect(isInside ? holds(a, b) : areApart(a, b), `${a.path} and ${b.path}`).toBe(true)
        }
      }
      for (const { path } of edges) expect(path).not.toMatch(/NaN|Infinity|undefined/)
    },
  )
})
