import { expect, it } from 'vitest'
import { readEvents } from '../../src/client/stream.ts'

async function read(...chunks: string[]): Promise<unknown[]> {
  const bytes = chunks.map((chunk) => new TextEncoder().encode(chunk))
  const events = []
  for await (const event of readEvents(ReadableStream.from(bytes) as ReadableStream<Uint8Array>)) events.push(event)
  return events
}

it('passes over comments and joins the lines of data', async () => {
  expect(await read(': still here\n\nid: 1\nevent: a\ndata: x\ndata: y\n\n')).toEqual([{ id: '1', event: 'a', data: 'x\ny' }])
})

it('reads lines that end in CR, LF or both, wherever a chunk is cut', async () => {
  const text = 'id: 1\r\nevent: a\r\ndata: x\r\n\r\nid: 2\revent: b\rdata: y\r\rid: 3\nevent: c\ndata: z\n\n'
  const whole = await read(text)
  expect(whole).toEqual([
    { id: '1', event: 'a', data: 'x' },
    { id: '2', event: 'b', data: 'y' },
    { id: '3', event: 'c', data: 'z' },
  ])
  for (let cut = 1; cut < text.length; cut++) expect(await read(text.slice(0, cut), text.slice(cut)), `cut at ${cut}`).toEqual(whole)
})

it('keeps characters whole whose bytes come in two chunks', async () => {
  const [first, second] = [new TextEncoder().encode('data: "é').subarray(0, 8), new TextEncoder().encode('data: "é"\n\n').subarray(8)]
  const events = []
  for await (const event of readEvents(ReadableStream.from([first, second]) as ReadableStream<Uint8Array>)) events.push(event.data)
  expect(events).toEqual(['"é"'])
})
