/** Batches in farms: submitted over HTTP, looked at item by item, and what must be true of them in the end. */
import type { Item, ItemPage, Session } from '../../src/client/index.ts'
import { keys } from '../../src/keys.ts'
import type { Farm } from './farm.ts'
import { eventually } from './wait.ts'

/** Submits a batch; returns its session. @throws Error when it is refused */
export async function submitBatch(farm: Farm, input: Record<string, unknown>): Promise<Session> {
  const { status, json, text } = await farm.client.post('/v1/sessions', { workflow: 'batch', input })
  if (status !== 202) throw new Error(`submit → ${status} ${text}`)
  return json as Session
}

/** All items, in their order. */
export async function itemsOf(farm: Farm, id: string): Promise<Item[]> {
  const items: Item[] = []
  for (let cursor: string | null = '0'; cursor !== null;) {
    const page = (await farm.client.get(`/v1/sessions/${id}/items?limit=200&cursor=${cursor}`)).json as ItemPage
    items.push(...page.items)
    cursor = page.next
  }
  return items
}

/** Waits until so many have succeeded. */
export const succeeded = (farm: Farm, id: string, count: number, ms?: number): Promise<unknown> =>
  eventually(`${count} items of ${id}`, async () => ((await farm.get(id)).progress?.items?.succeeded ?? 0) >= count, ms)

/** What is wrong with a batch of which all items have succeeded; empty when each was drawn once, and none is lost. */
export async function faultsOf(farm: Farm, id: string, count: number): Promise<string[]> {
  const items = await itemsOf(farm, id)
  const faults = items.flatMap(({ index, status, error }) =>
    status === 'succeeded' ? [] : [`item ${index} is ${status}: ${JSON.stringify(error)}`],
  )
  if (items.length !== count) faults.push(`${items.length} items`)
  // Sessions that nobody counts would be items drawn twice.
  const children = (await farm.members((shard) => keys.index(shard, 'parent', id))).toSorted()
  const counted = items.flatMap(({ session }) => session ?? []).toSorted()
  if (children.join() !== counted.join()) faults.push(`${children.length} child sessions, of which items know ${counted.length}`)
  for (const child of children) {
    const ends = (await farm.history(child)).filter(({ type }) => type === 'session.succeeded')
    if (ends.length !== 1) faults.push(`${child} has succeeded ${ends.length} times`)
  }
  return faults
}
