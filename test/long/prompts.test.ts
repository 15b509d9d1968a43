/** What a receipt says of a prompt that is longer than the text encoder's window. */
import { expect, it } from 'vitest'
import { readPngTexts } from '../../src/domains/postprocessing/png.ts'
import { startFarm } from '../support/farm.ts'

const words = (n: number, word: string): string => Array.from({ length: n }, (_, i) => `${word}${i + 1}`).join(' ')

it('a receipt tells what of each prompt was read, and which text was not', async () => {
  await using farm = await startFarm()
  const long = await farm.submit({ prompt: words(77, 'red'), negativePrompt: words(500, 'blurred') })
  const short = await farm.submit({ prompt: words(75, 'red') })
  await Promise.all([farm.pictures(long), farm.pictures(short)])
  const dropped = words(500, 'blurred').split(' ').slice(75).join(' ')
  const [encode] = await farm.attempts(long, 'inference.encode')
  expect(encode?.stats).toMatchObject({
    tokens: {
      prompt: { read: 75, dropped: 2, droppedText: 'red76 red77' },
      negativePrompt: { read: 75, dropped: 425, droppedText: dropped },
    },
  })
  expect((await farm.receipt(long)).notes.map(({ note }) => note)).toEqual([
    'inference.encode read 75 of 77 tokens of prompt; it did not read "red76 red77"',
    `inference.encode read 75 of 500 tokens of negativePrompt; it did not read ${JSON.stringify(`${dropped.slice(0, 200)}…`)}`,
  ])
  expect((await farm.receipt(short)).notes).toEqual([])
})

it('of prompts that are heard whole it tells chunks and weights; variations have one seed, and each is a picture of its own', async () => {
  await using farm = await startFarm({ real: true })
  const request = { seed: 5, steps: 4, width: 64, height: 64 }
  const leading = { guidanceRescale: 0.5, guidanceInterval: { end: 0.5 }, clipSkip: 2 }
  const long = `a (red:1.3) circle, ${words(40, 'plain')} BREAK on [blue]`
  const both = await farm.until(
    await farm.submit({ ...request, ...leading, prompt: long, count: 2, variation: { seed: 9, strength: 0.3 } }),
    'succeeded',
  )
  const [encode] = await farm.attempts(both.id, 'inference.encode')
  expect(encode?.stats).toMatchObject({
    tokens: {
      prompt: {
        dropped: 0,
        chunks: expect.any(Number),
        parts: expect.arrayContaining([
          { text: 'red', weight: 1.3, tokens: 1 },
          { text: 'blue', weight: 0.909091, tokens: 1 },
        ]),
      },
      negativePrompt: { read: 0, dropped: 0 },
    },
  })
  const { prompt, negativePrompt } = (encode?.stats?.['tokens'] ?? {}) as Record<string, { chunks: number; read: number }>
  expect(prompt?.chunks).toBeGreaterThan(2)
  expect(negativePrompt?.chunks).toBe(prompt?.chunks)
  expect((await farm.receipt(both.id)).notes).toEqual([])

  const images = both.output?.images ?? []
  expect(images.map(({ seed }) => seed)).toEqual([5, 5])
  const alone = await farm.pictures(await farm.submit({ ...request, ...leading, prompt: long, variation: { seed: 10, strength: 0.3 } }))
  expect(images.map(({ sha256 }) => sha256)).toEqual([expect.any(String), alone[0]])
  expect(images[0]?.sha256).not.toBe(alone[0])
  const { bytes } = await farm.client.get(`/v1/artifacts/${alone[0] ?? ''}`)
  expect(JSON.parse(readPngTexts(bytes)['darkroom'] ?? '')).toMatchObject({
    input: {
      promptSyntax: 'a1111',
      clipSkip: 2,
      variation: { seed: 10, strength: 0.3 },
      guidanceRescale: 0.5,
      guidanceInterval: { start: 0, end: 0.5 },
    },
  })

  const deep = await farm.until(await farm.submit({ ...request, prompt: 'x', clipSkip: 12 }), 'failed')
  expect(deep.error).toMatchObject({ code: 'inference.request_unfit', field: 'input.clipSkip' })
  expect(deep.error?.message).toMatch(/has the layers 1 to 3 from the end/)
}, 120_000)
