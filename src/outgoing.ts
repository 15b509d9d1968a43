/**
 * Where Darkroom may call on behalf of somebody who is not the operator. Names are allowed by the operator; an address
 * must be public, or lie in a network that the operator names. Every address is judged after the name was resolved, and
 * the connection is made to that address: a name that resolves to another one a moment later leads nowhere else.
 */
import { lookup, type LookupAddress } from 'node:dns'
import type { LookupFunction } from 'node:net'
import { promisify } from 'node:util'
import ipaddr from 'ipaddr.js'
import type { DarkroomError } from './errors.ts'

/** One purpose of such calls. */
export interface Outgoing {
  hosts: readonly string[]
  nets: readonly string[]
  /** The settings that say so, and who is off when they say nothing. */
  names: { hosts: string; nets: string; what: string }
  /** The refusal of a target, in words that begin with the target. */
  refusal: (message: string) => DarkroomError
}

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
 * @throws DarkroomError the purpose's refusal
 */
export function targetOf(text: string, outgoing: Outgoing): URL {
  const { hosts, names } = outgoing
  const refuse = (why: string): never => {
    throw outgoing.refusal(`${JSON.stringify(text.slice(0, 200))} ${why}`)
  }
  const url = URL.canParse(text) ? new URL(text) : refuse('is no URL')
  if (url.protocol !== 'https:' && url.protocol !== 'http:') refuse('is neither https nor http')
  if (url.username || url.password) refuse('carries a password')
  const host = hostOf(url)
  if (hosts.length === 0) refuse(`cannot be called: ${names.hosts} is empty, so ${names.what} are off`)
  if (!hosts.some((pattern) => isNamed(host, pattern))) refuse(`is not on a host of ${names.hosts}`)
  if (ipaddr.isValid(host)) checkAddress(url, host, outgoing)
  return url
}

/** @throws DarkroomError the purpose's refusal */
function checkAddress(url: URL, address: string, { nets, names, refusal }: Outgoing): void {
  const isAllowed = isWithin(address, nets)
  if (!isAllowed && !isPublic(address)) throw refusal(`${url.host} is ${address}, which is not public, nor in ${names.nets}`)
  if (!isAllowed && url.protocol === 'http:') throw refusal(`${url.host} is ${address}, outside ${names.nets}: only https goes there`)
}

/**
 * The address that a connection to the target has to use. One forbidden address of several refuses them all: which of
 * them is taken would be chance.
 * @throws DarkroomError the purpose's refusal; Error of the resolver
 */
export async function addressOf(url: URL, outgoing: Outgoing, resolve: Resolve = resolveAll): Promise<LookupAddress> {
  const host = hostOf(url)
  const found = ipaddr.isValid(host) ? [{ address: host, family: ipaddr.parse(host).kind() === 'ipv6' ? 6 : 4 }] : await resolve(host)
  for (const { address } of found) checkAddress(url, address, outgoing)
  const [first] = found
  if (!first) throw new Error(`${host} has no address`)
  return first
}

/** A lookup that knows one address, whatever the name resolves to by then. */
export const pinnedTo =
  (address: LookupAddress): LookupFunction =>
  (_host, { all }, done) =>
    all ? done(null, [address]) : done(null, address.address, address.family)

/** Rejects as soon as the signal is aborted; what it stands for goes on unheard. */
export async function abortable<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const over = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
  })
  return Promise.race([work, over])
}
