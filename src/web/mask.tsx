/** Paints over a picture what of it is to be drawn anew. */
import { useEffect, useRef, useSignal } from './view.ts'
import { attempt, upload } from './api.ts'
import { isPainting } from './form.ts'
import { maskFile, paint, type Stroke } from './strokes.ts'

const tools = { brush: ['Brush', 'b'], eraser: ['Eraser', 'e'], box: ['Box', 'r'] } as const
type Tool = keyof typeof tools
const mostZoom = 8
const settleMs = 400

export interface MaskProps {
  src: string
  width: number
  height: number
  /** Id of the mask once its painter rests; null when nothing is painted. */
  onMask: (id: string | null) => void
}

export function MaskPainter({ src, width, height, onMask }: MaskProps) {
  const canvas = useRef<HTMLCanvasElement>(null)
  const current = useRef<Stroke | null>(null)
  const tool = useSignal<Tool>('brush')
  const size = useSignal(Math.max(4, Math.round(Math.min(width, height) / 8)))
  const zoom = useSignal(1)
  const strokes = useSignal<readonly Stroke[]>([])
  const undone = useSignal<readonly Stroke[]>([])

  const draw = (): void => {
    const context = canvas.current?.getContext('2d')
    if (context) paint(context, current.current ? [...strokes.value, current.current] : strokes.value)
  }
  useEffect(() => {
    draw()
    const all = strokes.value
    let isLatest = true
    const tell = async (): Promise<void> => {
      const mask = all.length === 0 ? null : await upload(await maskFile(all, width, height))
      if (isLatest) onMask(mask && mask.sha256)
    }
    const settled = (): void => void (isLatest && (isPainting.value = false))
    isPainting.value = true
    const timer = setTimeout(() => void attempt(tell).then(settled), all.length === 0 ? 0 : settleMs)
    return () => {
      isLatest = false
      isPainting.value = false
      clearTimeout(timer)
    }
  }, [strokes.value])

  const add = (stroke: Stroke): void => {
    strokes.value = [...strokes.value, stroke]
    undone.value = []
  }
  const all = (kind: 'all' | 'invert' | 'clear') => () => add({ tool: kind, size: 0, points: [] })
  const undo = (): void => {
    undone.value = [...undone.value, ...strokes.value.slice(-1)]
    strokes.value = strokes.value.slice(0, -1)
  }
  const redo = (): void => {
    strokes.value = [...strokes.value, ...undone.value.slice(-1)]
    undone.value = undone.value.slice(0, -1)
  }
  const at = (event: PointerEvent): [number, number] => {
    const box = canvas.current?.getBoundingClientRect() ?? new DOMRect(0, 0, 1, 1)
    return [((event.clientX - box.x) * width) / box.width, ((event.clientY - box.y) * height) / box.height]
  }
  const down = (event: PointerEvent): void => {
    if (event.button !== 0) return
    canvas.current?.setPointerCapture(event.pointerId)
    const pressed = event.pointerType === 'pen' ? 0.3 + event.pressure : 1
    current.current = { tool: tool.value, size: size.value * pressed, points: [at(event)] }
    draw()
  }
  const move = (event: PointerEvent): void => {
    const stroke = current.current
    if (!stroke) return
    for (const each of event.getCoalescedEvents()) stroke.points.push(at(each))
    stroke.points.push(at(event))
    draw()
  }
  const up = (): void => {
    const stroke = current.current
    current.current = null
    if (stroke) add(stroke)
  }
  const resize = (by: number): void => void (size.value = Math.max(1, Math.min(Math.round(width / 2), size.value + by)))
  const keys = (event: KeyboardEvent): void => {
    const letter = event.key.toLowerCase()
    const [named] = (Object.keys(tools) as Tool[]).filter((each) => tools[each][1] === letter)
    if ((event.target as HTMLElement).tagName === 'INPUT') return
    if (letter === 'z' && (event.ctrlKey || event.metaKey)) (event.shiftKey ? redo : undo)()
    else if (event.ctrlKey || event.metaKey || event.altKey) return
    else if (named) tool.value = named
    else if (letter === '[') resize(-4)
    else if (letter === ']') resize(4)
    else return
    event.preventDefault()
  }
  const wheel = (event: WheelEvent): void => {
    if (!event.ctrlKey) return
    event.preventDefault()
    zoom.value = Math.max(1, Math.min(mostZoom, zoom.value * (event.deltaY < 0 ? 1.15 : 1 / 1.15)))
  }
  return (
    // oxlint-disable-next-line jsx-a11y/no-static-element-interactions -- the shortcuts of the buttons inside
    <div class="mask" role="group" aria-label="Mask" onKeyDown={keys}>
      <div class="tools" role="toolbar" aria-label="Tools of the mask">
        {(Object.keys(tools) as Tool[]).map((name) => (
          <button
            key={name}
            aria-pressed={tool.value === name}
            aria-keyshortcuts={tools[name][1]}
            title={`${tools[name][0]} (${tools[name][1].toUpperCase()})`}
            onClick={() => (tool.value = name)}
          >
            {tools[name][0]}
          </button>
        ))}
        <label class="range">
          <span>Size</span>
          <input
            type="range"
            min="1"
            max={Math.round(width / 2)}
            value={size.value}
            onInput={(event) => (size.value = Number(event.currentTarget.value))}
          />
          <output>{size.value}</output>
        </label>
        <button disabled={strokes.value.length === 0} onClick={undo}>
          Undo
        </button>
        <button disabled={undone.value.length === 0} onClick={redo}>
          Redo
        </button>
        <button onClick={all('all')}>All</button>
        <button onClick={all('invert')}>Invert</button>
        <button disabled={strokes.value.length === 0} onClick={all('clear')}>
          Clear
        </button>
      </div>
      <div
        class="stage"
        tabIndex={0}
        role="application"
        aria-label="Paint with the pointer. B brush, E eraser, R box, brackets change the size, Control Z takes back"
        onWheel={wheel}
      >
        <div class="layers" style={{ width: `${zoom.value * 100}%`, 'aspect-ratio': `${width} / ${height}` }}>
          <img src={src} alt="The picture under the mask" draggable={false} />
          <canvas
            ref={canvas}
            width={width}
            height={height}
            onPointerDown={down}
            onPointerMove={move}
            onPointerUp={up}
            onPointerCancel={up}
          />
        </div>
      </div>
    </div>
  )
}
