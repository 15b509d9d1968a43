/** Webhooks and their deliveries as HTTP shows them. A secret is shown when it is made, and never again. */
import { z } from 'zod'
import { sessionIdPattern } from '../../keys.ts'
import type { Delivery } from '../../webhooks/deliveries.ts'
import { deliveryStates, endings } from '../../webhooks/states.ts'
import type { Webhook } from '../../webhooks/webhooks.ts'
import { iso, isoOrNull, Time } from '../view.ts'

export const AddWebhook = z
  .strictObject({
    url: z.string().min(1).max(2000),
    events: z
      .array(z.enum(endings))
      .min(1)
      .default([...endings])
      .meta({ description: 'the ends of sessions that it is told of' }),
  })
  .meta({ id: 'AddWebhook', example: { url: 'https://studio.example.org/darkroom' } })

export const WebhookView = z
  .strictObject({
    id: z.string(),
    url: z.string(),
    events: z.array(z.enum(endings)),
    keyId: z.string().nullable().meta({ description: 'the API key that made it, whose sessions may name it' }),
    createdAt: Time,
  })
  .meta({ id: 'Webhook' })

export const WebhookWithSecret = WebhookView.extend({
  secret: z.string().meta({ description: 'by Standard Webhooks (`whsec_…`); shown this once' }),
}).meta({ id: 'WebhookWithSecret' })

export const DeliveryView = z
  .strictObject({
    session: z.string(),
    event: z.string().meta({ description: 'type of what is told', example: 'session.succeeded' }),
    state: z.enum(deliveryStates),
    tries: z.int(),
    said: z.string().nullable().meta({ description: 'what the last try came to' }),
    triedAt: Time.nullable(),
    endedAt: Time,
  })
  .meta({ id: 'Delivery' })

export const SendDeliveries = z
  .strictObject({
    sessions: z
      .array(z.string().regex(sessionIdPattern, 'must be a session id'))
      .min(1)
      .max(1000)
      .optional()
      .meta({ description: 'those to send once more; left out: the dead ones, 1,000 at most' }),
  })
  .meta({ id: 'SendDeliveries' })

export const presentWebhook = ({ id, url, events, keyId, createdAt }: Webhook): z.infer<typeof WebhookView> => ({
  id,
  url,
  events,
  keyId,
  createdAt: iso(createdAt),
})

export const presentDelivery = ({ session, status, state, tries, said, triedAt, endedAt }: Delivery): z.infer<typeof DeliveryView> => ({
  session,
  event: `session.${status}`,
  state,
  tries,
  said,
  triedAt: isoOrNull(triedAt),
  endedAt: iso(endedAt),
})
