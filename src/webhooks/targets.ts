/** Where webhooks may go, by the rules of `outgoing.ts`. */
import type { LookupAddress } from 'node:dns'
import type { Config } from '../config.ts'
import { addressOf as addressWithin, targetOf as targetWithin, type Outgoing, type Resolve } from '../outgoing.ts'
import { webhookError } from './errors.ts'

export type { Resolve }
export type Allowed = Pick<Config, 'webhookHosts' | 'webhookNets'>

const outgoing = ({ webhookHosts, webhookNets }: Allowed): Outgoing => ({
  hosts: webhookHosts,
  nets: webhookNets,
  names: { hosts: 'DARKROOM_WEBHOOK_HOSTS', nets: 'DARKROOM_WEBHOOK_NETS', what: 'webhooks' },
  refusal: (message) => webhookError('refused', message, { field: 'url' }),
})

/** As `outgoing.targetOf`. @throws DarkroomError `webhook.refused`, whose `field` is `url` */
export const targetOf = (text: string, allowed: Allowed): URL => targetWithin(text, outgoing(allowed))

/** As `outgoing.addressOf`. @throws DarkroomError `webhook.refused`; Error of the resolver */
export const addressOf = (url: URL, allowed: Allowed, resolve?: Resolve): Promise<LookupAddress> =>
  addressWithin(url, outgoing(allowed), resolve)
