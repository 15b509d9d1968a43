/** How large a picture may be: what workers say they draw, and what a submit is told that asks for more. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startFarm, type Farm } from '../../support/farm.ts'
import { eventually } from '../../support/wait.ts'

let farm: Farm
let small = ''
let large = ''

beforeAll(async () => {
  // Cells of the model are 4 × 4 pixels: 64 × 64 pixels and 128 × 128.
  const large4 = { DARKROOM_MAX_CELLS: '1024', DARKROOM_MAX_CELL_STEPS: '4096' }
  farm = await startFarm({ workers: [{ env: { DARKROOM_MAX_CELLS: '256' } }, { env: large4 }] })
  const devices = await eventually('both devices are listed', async () => {
    const { json } = await farm.client.get('/v1/devices')
    const found = json.devices as { id: string; capabilities: { limits: { cells: number; cellSteps: number } } }[]
    return found.length === 2 && found
  })
  const limits = Object.fromEntries(devices.map(({ id, capabilities }) => [capabilities.limits.cells, { id, ...capabilities.limits }]))
  expect(limits).toEqual({
    256: { id: expect.any(String) as string, cells: 256, cellSteps: 51_200 },
    1024: { id: expect.any(String) as string, cells: 1024, cellSteps: 4096 },
  })
  small = limits[256]!.id
  large = limits[1024]!.id
})
afterAll(() => farm[Symbol.asyncDispose]())

async function submit(input: Record<string, unknown>, device?: string): Promise<{ status: number; field?: string; message?: string }> {
  const body = { workflow: 'image-generation', input: { prompt: 'x', ...input }, ...(device !== undefined && { device }) }
  const { status, json } = await farm.client.post('/v1/sessions', body)
  if (status === 202) {
    await farm.control(json.id as string, 'cancel')
    return { status }
  }
  expect(json).toMatchObject({ code: 'api.invalid', remedy: expect.any(String) as string })
  const [{ field, message }] = json.problems as [{ field: string; message: string }]
  return { status, field, message }
}

describe('a picture that is larger than a device draws', () => {
  it('is refused with the figure, on any device that may take it or on the one that is named', async () => {
    const tooLarge = {
      status: 422,
      field: 'input.width',
      message: expect.stringMatching(/at most 4096 pixels, not 4608: .*`device`/) as string,
    }
    expect(await submit({ width: 64, height: 72 })).toEqual(tooLarge)
    expect(await submit({ width: 64, height: 72 }, small)).toEqual(tooLarge)
    expect(await submit({ width: 64, height: 72, steps: 14 }, large)).toEqual({ status: 202 })
    expect(await submit({ width: 136, height: 128 }, large)).toMatchObject({ status: 422, field: 'input.width' })
    expect(await submit({ width: 64, height: 64, steps: 16 })).toEqual({ status: 202 })
  })

  it('counts its steps too', async () => {
    const message = expect.stringMatching(/width · height · steps must be at most 65536, not 69632/) as string
    expect(await submit({ width: 64, height: 64, steps: 17 }, large)).toEqual({ status: 422, field: 'input.steps', message })
    expect(await submit({ width: 64, height: 64, steps: 17 }, small)).toEqual({ status: 202 })
  })

  it('is held to what the model fills in as well, and accepted where no worker says otherwise', async () => {
    // The model's own 64 × 64 and 20 steps.
    expect(await submit({}, large)).toMatchObject({ status: 422, field: 'input.steps' })
    for (const worker of farm.workersAlive()) await worker.stop(12_000)
    await expect.poll(() => submit({ width: 2048, height: 2048, steps: 200 }), { timeout: 10_000 }).toEqual({ status: 202 })
  })
})
