/** The machine of a workflow, with the states lit that a session is in, and those marked that it was in. */
import { signal } from './signals.ts'
import { useEffect, useRef } from './view.ts'
import type { Session, SessionState, WorkflowDrawing as Drawing } from '../client/types.ts'
import { get, quietly } from './api.ts'

const drawings = signal<Readonly<Record<string, Drawing>>>({})

async function look(workflow: string): Promise<void> {
  if (drawings.value[workflow]) return
  const drawing = await get<Drawing>(`/workflows/${encodeURIComponent(workflow)}/drawing`)
  drawings.value = { ...drawings.value, [workflow]: drawing }
}

/** The states that a value of a machine names, each by its path. */
export function pathsIn(value: unknown, around = ''): string[] {
  if (typeof value === 'string') return [around + value]
  return Object.entries(value ?? {}).flatMap(([name, inside]) => [around + name, ...pathsIn(inside, `${around}${name}.`)])
}

export interface DiagramProps {
  workflow: string
  /** The one whose states are lit; without it the machine alone is drawn. */
  session?: Session
  states?: readonly SessionState[]
}

export function Diagram({ workflow, session, states = [] }: DiagramProps) {
  const figure = useRef<HTMLElement>(null)
  useEffect(() => quietly(look(workflow)), [workflow])
  const drawing = drawings.value[workflow]
  // Its last state cannot be forked from, so it is not among them.
  const end =
    session?.status === 'succeeded'
      ? drawing?.boxes.find(({ type, depth, isFailure }) => type === 'final' && depth === 1 && !isFailure)
      : undefined
  const lit = new Set(end ? [end.path] : pathsIn(states.at(-1)?.value))
  const now = drawing?.boxes.filter(({ isOuter, path }) => !isOuter && lit.has(path)) ?? []
  const middle = now[0] && now[0].x + now[0].width / 2
  // What is lit is in sight, however long the machine.
  useEffect(() => {
    if (middle !== undefined) figure.current?.scrollTo({ left: middle - figure.current.clientWidth / 2 })
  }, [middle])
  if (!drawing || (session && states.length === 0)) return null
  const been = new Set(states.flatMap(({ value }) => pathsIn(value)))
  const classOf = ({ isOuter, type, path }: Drawing['boxes'][number]): string =>
    [isOuter && 'outer', type === 'final' && 'final', lit.has(path) ? 'lit' : been.has(path) && 'been'].filter(Boolean).join(' ')
  return (
    <figure ref={figure} class="diagram" tabIndex={0} aria-label="Diagram">
      <svg
        viewBox={`0 ${-drawing.above} ${drawing.width} ${drawing.height + drawing.above}`}
        width={drawing.width}
        role="img"
        aria-label={`The machine of ${workflow}${session ? `, ${session.endedAt === null ? 'now' : 'at last'} in ${now.map(({ name }) => name).join(', ')}` : ''}`}
      >
        <defs>
          <marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
            <path d="M0 0 8 4 0 8z" />
          </marker>
        </defs>
        {drawing.boxes.map((box) => (
          <g key={box.id} class={classOf(box)} data-state={box.id}>
            <rect x={box.x} y={box.y} width={box.width} height={box.height} rx={box.isOuter ? 10 : 6} />
            <text x={box.x + 10} y={box.y + 17}>
              {box.name}
            </text>
            {box.steps.map((step, i) => (
              <text key={step} class="step" x={box.x + 10} y={box.y + 33 + i * 15}>
                {step}
              </text>
            ))}
          </g>
        ))}
        {drawing.edges.map(({ path, title }) => (
          <path key={path} class="edge" d={path} marker-end="url(#tip)">
            <title>{title}</title>
          </path>
        ))}
      </svg>
    </figure>
  )
}
