/** `darkroom webhooks`: where the ends of sessions are told, and what was not told. */
import type { AddWebhook, Delivery } from '../client/index.ts'
import { connectApi, type ConnectionOptions } from './connection.ts'
import { inline, say, sayJson, table, whisper } from './terminal.ts'

interface Output extends ConnectionOptions {
  json?: boolean
}

export async function list(options: Output): Promise<void> {
  const webhooks = await (await connectApi(options)).webhooks.list()
  if (options.json) return sayJson(webhooks)
  if (webhooks.length === 0) return say('no webhooks')
  const rows = webhooks.map(({ id, events, createdAt, url }) => [id, events.join(','), createdAt, url])
  say(table(['WEBHOOK', 'TOLD OF', 'MADE', 'URL'], rows))
}

export async function add(url: string, { event, json, ...options }: Output & { event?: AddWebhook['events'] }): Promise<void> {
  const made = await (await connectApi(options)).webhooks.add({ url, ...(event && { events: event }) })
  if (json) return sayJson(made)
  whisper(inline(`webhook ${made.id}; its secret is shown this once:`))
  say(made.secret)
}

export async function rotate(id: string, options: Output): Promise<void> {
  const made = await (await connectApi(options)).webhooks.rotate(id)
  if (options.json) return sayJson(made)
  whisper('the new secret is shown this once; the one before signs for another day:')
  say(made.secret)
}

export async function remove(id: string, options: Output): Promise<void> {
  await (await connectApi(options)).webhooks.remove(id)
  say(inline(`${id} is told nothing any more`))
}

export async function deliveries(
  id: string,
  { state, limit, ...options }: Output & { state?: Delivery['state']; limit?: number },
): Promise<void> {
  const client = await connectApi(options)
  const found = await client.webhooks.deliveries(id, { ...(state && { state }), ...(limit !== undefined && { limit }) })
  if (options.json) return sayJson(found)
  if (found.length === 0) return say('none')
  const rows = found.map((each) => [each.session, each.event, each.state, String(each.tries), each.triedAt ?? 'not yet', each.said ?? ''])
  say(table(['SESSION', 'EVENT', 'STATE', 'TRIES', 'TRIED', ''], rows))
}

export async function send(id: string, sessions: string[], options: Output): Promise<void> {
  const sent = await (await connectApi(options)).webhooks.send(id, sessions.length > 0 ? sessions : undefined)
  if (options.json) sayJson({ sent })
  else say(`${sent} sent once more`)
}
