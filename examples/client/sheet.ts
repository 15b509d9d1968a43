/**
 * Draws one prompt through what `image-generation` can do, and lays the pictures on one sheet:
 *
 *     npm start                                            # in another terminal
 *     node --import tsx examples/client/sheet.ts docs/features.png
 */
import { writeFile } from 'node:fs/promises'
import { pathToFileURL } from 'node:url'
import { DarkroomClient, type ImageRequest } from 'darkroom/client'
import sharp, { type OverlayOptions } from 'sharp'

const scene = 'a red circle left of a blue square on yellow'
const base = { prompt: scene, seed: 8, width: 128, height: 128 } as const
const edges = { model: 'darkroom-tiny/controlnet-edge', preprocessor: { name: 'canny' } } as const

type Ask = Partial<ImageRequest>
/** A picture of the sheet: what is written beneath it, and what is asked for beside the scene. */
type Picture = [name: string, ask: (first: string, mask: string) => Ask]

const pictures: readonly Picture[] = [
  ['text to image', () => ({})],
  ['variation 0.4', () => ({ variation: { seed: 3, strength: 0.4 } })],
  ['sampler euler_a, 40 steps', () => ({ sampler: 'euler_a', steps: 40 })],
  ['image to image 0.6', (picture) => ({ picture, strength: 0.6, prompt: 'a green circle left of a purple square on yellow' })],
  [
    'inpainting',
    (picture, mask) => ({
      picture,
      mask: { source: mask, fill: 'noise', blur: 1 },
      strength: 1,
      prompt: 'a red circle left of a green star on yellow',
    }),
  ],
  [
    'outpainting',
    (picture) => ({
      picture,
      resize: 'pad',
      mask: { source: 'border', fill: 'noise', blur: 2 },
      strength: 1,
      width: 192,
      prompt: 'a plain yellow background',
    }),
  ],
  [
    'ControlNet, edges',
    (picture) => ({ control: [{ ...edges, picture }], prompt: 'a white circle left of a black square on green', seed: 21 }),
  ],
  [
    'ControlNet until 40 %',
    (picture) => ({ control: [{ ...edges, picture, end: 0.4 }], prompt: 'a white circle left of a black square on green', seed: 21 }),
  ],
  ['110 tokens, green last', () => ({ prompt: `${'a plain background and '.repeat(25)}a red circle left of a blue square on green` })],
  ['weights', () => ({ prompt: 'a (small:1.6) red circle left of a (large:1.6) blue square on yellow' })],
  ['LoRA pastel', () => ({ adapters: [{ model: 'pastel' }] })],
  ['LoRA outline', () => ({ adapters: [{ model: 'outline' }] })],
  [
    'both, 0.4 and 1',
    () => ({
      adapters: [
        { model: 'pastel', weight: 0.4 },
        { model: 'outline', weight: 1 },
      ],
    }),
  ],
  ['hires, ×2', () => ({ hires: { scale: 2, upscaler: 'lanczos', strength: 0.3 } })],
  [
    'a region drawn again',
    () => ({
      detail: [
        { box: { left: 66, top: 34, width: 62, height: 62 }, prompt: 'a green star on yellow', strength: 0.95, padding: 0, blur: 1 },
      ],
    }),
  ],
]

const [cell, line] = [268, 34]
const columns = 5

async function draw(client: DarkroomClient, ask: Ask): Promise<{ id: string; bytes: Buffer }> {
  const session = await client.untilEnd((await client.generate({ ...base, ...ask })).id)
  const [image] = session.output?.images ?? []
  if (!image) throw new Error(`${session.id} ${session.status}: ${session.error?.message ?? 'no picture'}`)
  return { id: image.sha256, bytes: Buffer.from(await client.artifact(image.sha256)) }
}

/** A mask of 128 × 128: what lies right of the circle, white. */
const rightPart = (): Promise<Buffer> =>
  sharp({ create: { width: 128, height: 128, channels: 3, background: 'black' } })
    .composite([{ input: { create: { width: 63, height: 128, channels: 3, background: 'white' } }, left: 65, top: 0 }])
    .png()
    .toBuffer()

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

/** Draws all pictures on the farm of `client`. @returns the sheet, a PNG with a palette */
export async function sheet(client: DarkroomClient): Promise<Buffer> {
  const { sha256: mask } = await client.upload(await rightPart())
  let first = ''
  const layers: OverlayOptions[] = []
  for (const [i, [name, ask]] of pictures.entries()) {
    const { id, bytes } = await draw(client, ask(first, mask))
    first ||= id
    const [left, top] = [(i % columns) * cell + 6, Math.floor(i / columns) * (cell + line) + 6]
    // Each pixel stays a square: what is drawn at 128 is shown at 256.
    const shown = await sharp(bytes).resize({ width: 256, height: 256, fit: 'contain', background: 'white', kernel: 'nearest' }).toBuffer()
    const words = `<svg width="${cell}" height="${line}"><text x="0" y="20" font-family="sans-serif" font-size="15" fill="#333">${escaped(name)}</text></svg>`
    layers.push({ input: shown, left, top }, { input: Buffer.from(words), left, top: top + 256 })
  }
  const rows = Math.ceil(pictures.length / columns)
  const size = { width: columns * cell, height: rows * (cell + line) + 6 }
  return sharp({ create: { ...size, channels: 3, background: 'white' } })
    .composite(layers)
    .png({ palette: true, colours: 128, effort: 10 })
    .toBuffer()
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [, , path = 'features.png'] = process.argv
  await writeFile(path, await sheet(new DarkroomClient({ url: process.env['DARKROOM_URL'] ?? 'http://127.0.0.1:4780' })))
}
