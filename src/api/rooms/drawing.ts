/** The machine of a workflow, with the states lit that a session is in, and those marked that it was in. */
import { layOut, type Drawing } from '../../engine/layout.ts'
import type { WorkflowInfo } from '../../engine/registry.ts'
import { el, type Element } from './markup.ts'

/** The states that a value of a machine names, each by its path. */
export function pathsIn(value: unknown, around = ''): string[] {
  if (typeof value === 'string') return [around + value]
  return Object.entries(value ?? {}).flatMap(([name, inside]) => [around + name, ...pathsIn(inside, `${around}${name}.`)])
}

/** Where a session is, and has been, by the values of its machine. */
export interface Way {
  isOver: boolean
  isWell: boolean
  values: readonly unknown[]
}

export function drawing({ name, graph }: Pick<WorkflowInfo, 'name' | 'graph'>, way?: Way): Element {
  const { width, height, above, boxes, edges } = layOut(graph)
  // Its last state cannot be forked from, so it is not among them.
  const end = way?.isWell ? boxes.find(({ type, depth, isFailure }) => type === 'final' && depth === 1 && !isFailure) : undefined
  const lit = new Set(end ? [end.path] : pathsIn(way?.values.at(-1)))
  const been = new Set(way?.values.flatMap((value) => pathsIn(value)))
  const now = boxes.filter(({ isOuter, path }) => !isOuter && lit.has(path))
  const classOf = ({ isOuter, type, path }: Drawing['boxes'][number]): string =>
    [isOuter && 'outer', type === 'final' && 'final', lit.has(path) ? 'lit' : been.has(path) && 'been'].filter(Boolean).join(' ')
  const where = way ? `, ${way.isOver ? 'at last' : 'now'} in ${now.map((box) => box.name).join(', ')}` : ''
  return el(
    'Drawing',
    { key: name, middle: now[0] && now[0].x + now[0].width / 2 },
    el(
      'svg',
      { viewBox: `0 ${-above} ${width} ${height + above}`, width, role: 'img', 'aria-label': `The machine of ${name}${where}` },
      el('defs', {}, el('marker', tip, el('path', { d: 'M0 0 8 4 0 8z' }))),
      boxes.map((box) =>
        el(
          'g',
          { key: box.id, class: classOf(box), 'data-state': box.id },
          el('rect', { x: box.x, y: box.y, width: box.width, height: box.height, rx: box.isOuter ? 10 : 6 }),
          el('text', { x: box.x + 10, y: box.y + 17 }, box.name),
          box.steps.map((step, i) => el('text', { class: 'step', x: box.x + 10, y: box.y + 33 + i * 15 }, step)),
        ),
      ),
      edges.map(({ path, title }) => el('path', { key: path, class: 'edge', d: path, 'marker-end': 'url(#tip)' }, el('title', {}, title))),
    ),
  )
}

const tip = { id: 'tip', viewBox: '0 0 8 8', refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: 'auto' }
