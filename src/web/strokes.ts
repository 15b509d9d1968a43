/** A mask as the strokes that paint it: so the last one can be taken back, and its pixels are those of the picture. */
export interface Stroke {
  tool: 'brush' | 'eraser' | 'box' | 'all' | 'invert' | 'clear'
  /** Pixels across, of the picture. */
  size: number
  points: [x: number, y: number][]
}

type Context = CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D

/** Paints all of them in order, opaque where the mask is. */
export function paint(context: Context, strokes: readonly Stroke[]): void {
  const { width, height } = context.canvas
  context.globalCompositeOperation = 'source-over'
  context.clearRect(0, 0, width, height)
  for (const stroke of strokes) paintOne(context, stroke)
}

function paintOne(context: Context, { tool, size, points }: Stroke): void {
  const { width, height } = context.canvas
  context.globalCompositeOperation = tool === 'eraser' ? 'destination-out' : tool === 'invert' ? 'xor' : 'source-over'
  if (tool === 'clear') return context.clearRect(0, 0, width, height)
  if (tool === 'all' || tool === 'invert') return context.fillRect(0, 0, width, height)
  const [first, ...rest] = points
  if (!first) return
  if (tool === 'box') {
    const [x, y] = rest.at(-1) ?? first
    return context.fillRect(first[0], first[1], x - first[0], y - first[1])
  }
  context.lineWidth = size
  context.lineCap = 'round'
  context.lineJoin = 'round'
  context.beginPath()
  context.moveTo(...first)
  // A stroke without a second point is a dot, for which a line needs some length.
  for (const point of rest.length > 0 ? rest : [[first[0] + 0.01, first[1]] as const]) context.lineTo(...point)
  context.stroke()
}

/** The mask as the API takes it: a PNG of the picture's size, white is drawn anew. */
export async function maskFile(strokes: readonly Stroke[], width: number, height: number): Promise<Uint8Array> {
  const canvas = new OffscreenCanvas(width, height)
  const context = canvas.getContext('2d')
  if (!context) throw new Error('this browser draws no canvas')
  context.fillStyle = 'white'
  context.strokeStyle = 'white'
  paint(context, strokes)
  context.globalCompositeOperation = 'destination-over'
  context.fillStyle = 'black'
  context.fillRect(0, 0, width, height)
  const file = await canvas.convertToBlob({ type: 'image/png' })
  return new Uint8Array(await file.arrayBuffer())
}
