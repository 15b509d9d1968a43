/** Webhooks over HTTP: make, list, remove; what they were told, and what to send once more. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { deliveryStates } from '../../webhooks/states.ts'
import { needs } from '../auth.ts'
import { refuseBody } from '../body.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { sightOf } from '../policy.ts'
import { json, keyed, noQuery, pageLimit, problems } from '../route.ts'
import { AddWebhook, DeliveryView, presentDelivery, presentWebhook, SendDeliveries, WebhookView, WebhookWithSecret } from './views.ts'

const idParam = z.object({ id: z.string().meta({ param: { name: 'id', in: 'path' }, description: 'id of the webhook' }) })
/** Most deliveries of a page, and most that are sent once more at a time. */
const mostDeliveries = 1000

const add = createRoute({
  method: 'post',
  path: '/webhooks',
  summary: 'Make a webhook, which a submission may name',
  tags: ['webhooks'],
  ...keyed,
  middleware: needs('control'),
  request: { query: noQuery, body: { required: true, content: { 'application/json': { schema: AddWebhook } } } },
  responses: { 201: json('The webhook with its secret, which is shown this once', WebhookWithSecret), ...problems() },
})

const list = createRoute({
  method: 'get',
  path: '/webhooks',
  summary: 'List the webhooks, newest first',
  tags: ['webhooks'],
  ...keyed,
  middleware: needs('read'),
  request: { query: noQuery },
  responses: { 200: json('All that the caller may see', z.strictObject({ webhooks: z.array(WebhookView) })), ...problems() },
})

const get = createRoute({
  method: 'get',
  path: '/webhooks/{id}',
  summary: 'Get a webhook',
  tags: ['webhooks'],
  ...keyed,
  middleware: needs('read'),
  request: { params: idParam, query: noQuery },
  responses: { 200: json('The webhook', WebhookView), ...problems(404) },
})

const rotate = createRoute({
  method: 'post',
  path: '/webhooks/{id}/rotate',
  summary: 'Give a webhook a new secret; the one before signs for another day',
  tags: ['webhooks'],
  ...keyed,
  middleware: needs('control'),
  request: { params: idParam, query: noQuery },
  responses: { 200: json('The webhook with its new secret, which is shown this once', WebhookWithSecret), ...problems(404) },
})

const remove = createRoute({
  method: 'delete',
  path: '/webhooks/{id}',
  summary: 'Remove a webhook: it is told nothing any more',
  tags: ['webhooks'],
  ...keyed,
  middleware: needs('control'),
  request: { params: idParam, query: noQuery },
  responses: { 204: { description: 'Removed' }, ...problems(404) },
})

const deliveries = createRoute({
  method: 'get',
  path: '/webhooks/{id}/deliveries',
  summary: 'What a webhook was told, is to be told, or was not',
  description: 'Delivered and dead ones the latest first, pending ones by when they are due. The last 100 and 1,000 of a shard are kept.',
  tags: ['webhooks'],
  ...keyed,
  middleware: needs('read'),
  request: {
    params: idParam,
    query: z.strictObject({ state: z.enum(deliveryStates).default('dead'), limit: pageLimit(mostDeliveries, 50) }),
  },
  responses: { 200: json('Its deliveries', z.strictObject({ deliveries: z.array(DeliveryView) })), ...problems(404) },
})

const send = createRoute({
  method: 'post',
  path: '/webhooks/{id}/send',
  summary: 'Send deliveries once more, with a day of tries before them',
  tags: ['webhooks'],
  ...keyed,
  middleware: needs('control'),
  request: { params: idParam, query: noQuery, body: { required: true, content: { 'application/json': { schema: SendDeliveries } } } },
  responses: { 200: json('How many are sent', z.strictObject({ sent: z.int() })), ...problems(404) },
})

export function webhookRoutes({ engine }: ApiParts): App {
  const { webhooks, deliveries: told } = engine
  return new OpenAPIHono<AppEnv>()
    .openapi(add, async (c) => {
      const { url, events } = c.req.valid('json')
      const { webhook, secret } = await webhooks.add(url, events, c.get('caller').keyId)
      return c.json({ ...presentWebhook(webhook), secret }, 201)
    })
    .openapi(list, async (c) => c.json({ webhooks: (await webhooks.list(sightOf(c.get('caller')))).map(presentWebhook) }, 200))
    .openapi(get, async (c) => c.json(presentWebhook(await webhooks.get(c.req.valid('param').id, sightOf(c.get('caller')))), 200))
    .openapi(rotate, async (c) => {
      await refuseBody(c)
      const { webhook, secret } = await webhooks.rotate(c.req.valid('param').id, sightOf(c.get('caller')))
      return c.json({ ...presentWebhook(webhook), secret }, 200)
    })
    .openapi(remove, async (c) => {
      await refuseBody(c)
      const { id } = c.req.valid('param')
      await webhooks.remove(id, sightOf(c.get('caller')))
      await told.forget(id)
      return c.body(null, 204)
    })
    .openapi(deliveries, async (c) => {
      const { id } = await webhooks.get(c.req.valid('param').id, sightOf(c.get('caller')))
      const { state, limit } = c.req.valid('query')
      return c.json({ deliveries: (await told.list(id, state, limit)).map(presentDelivery) }, 200)
    })
    .openapi(send, async (c) => {
      const { id } = await webhooks.get(c.req.valid('param').id, sightOf(c.get('caller')))
      const { sessions } = c.req.valid('json')
      const wanted = sessions ?? (await told.list(id, 'dead', mostDeliveries)).map(({ session }) => session)
      return c.json({ sent: await told.send(id, wanted) }, 200)
    })
}
