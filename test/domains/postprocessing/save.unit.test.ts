/** What a picture's file says of its request. */
import { open } from 'node:fs/promises'
import { expect, it } from 'vitest'
import type { Writing } from '../../../src/artifacts/store.ts'
import type { Tools } from '../../../src/domains/operation.ts'
import { readPngTexts } from '../../../src/domains/postprocessing/png.ts'
import { save } from '../../../src/domains/postprocessing/save.ts'
import type { ImageRequest } from '../../../src/domains/values.ts'

const request: ImageRequest = {
  model: { id: 'm', bodyHash: 'ab'.repeat(32) },
  prompt: 'a star',
  negativePrompt: '',
  width: 8,
  height: 8,
  steps: 4,
  guidance: 3,
  seed: 1,
  sampler: 'DPM++ 2M SDE',
}

async function textsOf(input: ImageRequest): Promise<Record<string, string>> {
  let png = new Uint8Array()
  const tools = {
    open: async () => undefined,
    read: async () => Buffer.alloc(8 * 8 * 3),
    keep: async (picture: Writing) => {
      await using file = await open('/dev/null', 'w')
      await picture.writeTo(file.fd)
      png = Uint8Array.from(picture.whole())
      return 'a'
    },
  }
  const exactness = { key: 'k', facts: {} }
  await save.run({ pixels: 'a'.repeat(64), width: 8, height: 8, workflow: 'w@1', request: input, exactness }, tools as unknown as Tools)
  return readPngTexts(png)
}

it('names the schedule as A1111 does, and nothing where there is none', async () => {
  const settings = 'CFG scale: 3, Seed: 1, Size: 8x8, Model hash: ababababab, Model: m'
  const without = await textsOf(request)
  expect(without['parameters']).toBe(`a star\nSteps: 4, Sampler: DPM++ 2M SDE, ${settings}`)
  expect(without['darkroom']).toBe(JSON.stringify({ workflow: 'w@1', input: request, exactness: { key: 'k', facts: {} } }))
  const spread = await textsOf({ ...request, schedule: 'Karras' })
  expect(spread['parameters']).toBe(`a star\nSteps: 4, Sampler: DPM++ 2M SDE, Schedule type: Karras, ${settings}`)
  expect(JSON.parse(spread['darkroom'] ?? '')).toMatchObject({ input: { schedule: 'Karras' } })
})
