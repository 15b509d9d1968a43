/** What a receipt says of a prompt that is longer than the text encoder's window. */
import { expect, it } from 'vitest'
import { startFarm } from '../../support/farm.ts'

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
