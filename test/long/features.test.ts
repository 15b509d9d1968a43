/** What people draw with: each feature has the same bytes alone, among all others, paused, and after a kill. */
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startFarm, type Farm } from '../support/farm.ts'
import { shapes } from '../support/pictures.ts'
import { eventually } from '../support/wait.ts'

const slow = 900_000
const plain = { prompt: 'a red circle left of a blue square on yellow', seed: 31, steps: 12, width: 64, height: 64, sampler: 'Euler a' }

let farm: Farm
let features: Record<string, Record<string, unknown>>
let alone: Record<string, string[]>
beforeAll(async () => {
  farm = await startFarm({ workers: 2, real: true })
  const sent = async (svg: string): Promise<string> => {
    const body = await sharp(Buffer.from(svg)).resize(64, 64).png().toBuffer()
    return (await farm.client.request('POST', '/v1/artifacts', { headers: { 'Content-Type': 'image/png' }, body })).json.sha256 as string
  }
  const picture = await sent(shapes(64))
  const mask = await sent(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 2"><path d="M0 0h2v2H0z"/><path d="M1 0h1v2H1z" fill="#fff"/></svg>',
  )
  const control = [{ model: 'darkroom-tiny/controlnet-edge', picture, preprocessor: { name: 'canny' }, weight: 0.7 }]
  features = {
    'text alone': {},
    'a picture': { picture, strength: 0.6 },
    'a mask': { picture, mask: { source: mask, fill: 'noise' }, strength: 0.8 },
    'a masked region': { picture, mask: { source: mask, area: 'masked' } },
    'a ControlNet': { control },
    'a ControlNet over a picture': { control, picture },
    'a LoRA': { adapters: [{ model: 'pastel', weight: 0.7 }] },
    'two LoRAs': { adapters: [{ model: 'pastel', weight: 0.7 }, { model: 'outline' }] },
    'weights and a break': { prompt: 'a (red:1.3) circle BREAK [blue] square' },
    'a variation': { variation: { seed: 9, strength: 0.3 } },
    'guidance in an interval, rescaled': { guidanceInterval: { start: 0.2, end: 0.7 }, guidanceRescale: 0.6 },
    'a second pass': { hires: { scale: 1.5, strength: 0.6 } },
    'a region': { detail: [{ box: { left: 8, top: 8, width: 24, height: 24 } }] },
  }
  alone = {}
  for (const [name, feature] of Object.entries(features))
    alone[name] = await farm.pictures(await farm.submit({ ...plain, ...feature }), slow)
}, slow)
afterAll(() => farm[Symbol.asyncDispose](), 60_000)

const submitted = async (): Promise<[name: string, id: string][]> =>
  Promise.all(
    Object.entries(features).map(async ([name, feature]) => [name, await farm.submit({ ...plain, ...feature })] as [string, string]),
  )
const drawn = async (sessions: [name: string, id: string][]): Promise<Record<string, string[]>> =>
  Object.fromEntries(await Promise.all(sessions.map(async ([name, id]) => [name, await farm.pictures(id, slow)])))

describe('each feature', () => {
  it('draws a picture of its own', () => {
    expect(new Set(Object.values(alone).flat()).size).toBe(Object.keys(features).length)
  })

  it('has the same bytes among all others, while a worker is killed in the middle', { timeout: slow }, async () => {
    const sessions = await submitted()
    const { worker } = await farm.untilCall(sessions[0]?.[1] ?? '', 3, slow)
    await worker.kill()
    // The other one draws on.
    expect(await drawn(sessions)).toEqual(alone)
  })

  it('has the same bytes where every session is paused and resumed, whatever it does then', { timeout: slow }, async () => {
    const sessions = await submitted()
    await farm.untilCall(sessions[0]?.[1] ?? '', 3, slow)
    await Promise.all(sessions.map(([, id]) => farm.control(id, 'pause')))
    const rests = async (): Promise<boolean> =>
      (await Promise.all(sessions.map(([, id]) => farm.get(id)))).every(({ status }) => status === 'paused' || status === 'succeeded')
    await eventually('all rest', rests, slow)
    const paused = (await Promise.all(sessions.map(([, id]) => farm.get(id)))).filter(({ status }) => status === 'paused')
    expect(paused.length).toBeGreaterThan(3)
    for (const { id } of paused) await farm.control(id, 'resume')
    expect(await drawn(sessions)).toEqual(alone)
  })
})
