/**
 * Where webhooks may go. Names are allowed by the operator; an address must be public, or lie in a network that the
 * operator names. Every address is judged after the name was resolved, and the connection is made to that address: a
 * name that resolves to another one a moment later leads nowhere else.
 */
import { lookup, type LookupAddress } from 'node:dns'
import { promisify } from 'node:util'
import ipaddr from 'ipaddr.js'
import type { Config } from '../config.ts'
import { webhookError } from './errors.ts'

export type Allowed = Pick<Config, 'webhookHosts' | 'webhookNets'>

/** Resolves a name to all of its addresses. */
export type Resolve = (host: string) => Promise<LookupAddress[]>

const resolveAll: Resolve = (host) => promisify(lookup)(host, { all: true })

const hostOf = ({ hostname }: URL): string => hostname.replace(/^\[|\]$/g, '').toLowerCase()

function isNamed(host: string, pattern: string): boolean {
  const wanted = pattern.toLowerCase()
  return wanted === '*' || wanted === host || (wanted.startsWith('*.') && host.endsWith(wanted.slice(1)))
}

/** Whether an address lies in one of the networks; an IPv4 address that is written as an IPv6 one is the IPv4 one. */
const isWithin = (address: string, nets: readonly string[]): boolean => {
  const parsed = ipaddr.process(address)
  return nets.some((net) => {
    const [base, bits] = ipaddr.parseCIDR(net)
    return base.kind() === parsed.kind() && parsed.match(base, bits)
  })
}

/** Addresses of the IANA special-purpose registries (private, loopback, link-local, multicast, mapped, …) are not. */
const isPublic = (address: string): boolean => ipaddr.process(address).range() === 'unicast'

/**
 * The target as a URL, as far as it can be judged without resolving its name.
 * @throws DarkroomError `webhook.refused`, whose `field` is `url`
 */
export function targetOf(text: string, { webhookHosts, webhookNets }: Allowed): URL {
  const refuse = (why: string): never => {
    throw webhookError('refused', `${JSON.stringify(text.slice(0, 200))} ${why}`, { field: 'url' })
  }
  const url = URL.canParse(text) ? new URL(text) : refuse('is no URL')
  if (url.protocol !== 'https:' && url.protocol !== 'http:') refuse('is neither https nor http')
  if (url.username || url.password) refuse('carries a password')
  const host = hostOf(url)
  if (webhookHosts.length === 0) refuse('cannot be called: DARKROOM_WEBHOOK_HOSTS is empty, so webhooks are off')
  if (!webhookHosts.some((pattern) => isNamed(host, pattern))) refuse('is not on a host of DARKROOM_WEBHOOK_HOSTS')
  if (ipaddr.isValid(host)) checkAddress(url, host, webhookNets)
  return url
}

/** @throws DarkroomError `webhook.refused` */
function checkAddress(url: URL, address: string, nets: readonly string[]): void {
  const isAllowed = isWithin(address, nets)
  if (!isAllowed && !isPublic(address))
    throw webhookError('refused', `${url.host} is ${address}, which is not public, nor in DARKROOM_WEBHOOK_NETS`, { field: 'url' })
  if (!isAllowed && url.protocol === 'http:')
    throw webhookError('refused', `${url.host} is ${address}, outside DARKROOM_WEBHOOK_NETS: only https goes there`, { field: 'url' })
}

/**
 * The address that a connection to the target has to use. One forbidden address of several refuses them all: which of
 * them is taken would be chance.
 * @throws DarkroomError `webhook.refused`; Error of the resolver
 */
export async function addressOf(url: URL, { webhookNets }: Allowed, resolve: Resolve = resolveAll): Promise<LookupAddress> {
  const host = hostOf(url)
  const found = ipaddr.isValid(host) ? [{ address: host, family: ipaddr.parse(host).kind() === 'ipv6' ? 6 : 4 }] : await resolve(host)
  for (const { address } of found) checkAddress(url, address, webhookNets)
  const [first] = found
  if (!first) throw new Error(`${host} has no address`)
  return first
}
