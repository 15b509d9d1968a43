/** What goes together. */
import { expect, it } from 'vitest'
import { Bundles } from '../../src/engine/bundles.ts'
import { deferred, type Deferred } from '../../src/promises.ts'

const opened = (most: number) => {
  const sent: { items: readonly number[]; over: Deferred<void> }[] = []
  const bundles = new Bundles<number>(most, (items) => {
    const over = deferred<void>()
    sent.push({ items, over })
    return over.promise
  })
  return { bundles, sent, items: () => sent.map(({ items }) => items) }
}
const soon = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

it('one alone is sent at once; those that come meanwhile go together, each bundle when the one before it is over', async () => {
  const { bundles, sent, items } = opened(3)
  const all = [bundles.add(1)]
  await soon()
  expect(items()).toEqual([[1]])
  all.push(...[2, 3, 4, 5].map((item) => bundles.add(item)))
  await soon()
  expect(items()).toEqual([[1]])
  sent[0]?.over.resolve()
  await all[0]
  await soon()
  expect(items()).toEqual([[1], [2, 3, 4]])
  sent[1]?.over.resolve()
  await soon()
  expect(items()).toEqual([[1], [2, 3, 4], [5]])
  all.push(bundles.add(6))
  sent[2]?.over.resolve()
  await soon()
  sent[3]?.over.resolve()
  await Promise.all(all)
  expect(items()).toEqual([[1], [2, 3, 4], [5], [6]])
})

it('what could not be sent is told to those whose it was, and nobody else', async () => {
  const { bundles, sent } = opened(3)
  const first = bundles.add(1)
  await soon()
  const others = [bundles.add(2), bundles.add(3)]
  sent[0]?.over.reject(new Error('away'))
  await expect(first).rejects.toThrow('away')
  await soon()
  sent[1]?.over.resolve()
  await Promise.all(others)
})
