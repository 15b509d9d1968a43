/**
 * What a request must be before anything reads it: its target, its Host, the bytes of its headers (RFC 9110, 9112). It
 * stands before the app, because a target that is no address never becomes a request there.
 */
import { isUtf8 } from 'node:buffer'
import type { IncomingMessage } from 'node:http'
import { apiError, type DarkroomError } from '../errors.ts'

type Head = Pick<IncomingMessage, 'url' | 'rawHeaders' | 'httpVersion'>

/** What is wrong with the head of a request; undefined when nothing is. */
export function malformation({ url = '', rawHeaders, httpVersion }: Head): DarkroomError | undefined {
  if (!/^1\.[01]$/.test(httpVersion)) return malformed(`HTTP/${httpVersion} is not spoken here`)
  const hosts: string[] = []
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const [name = '', value = ''] = rawHeaders.slice(i, i + 2)
    if (name.toLowerCase() === 'host') hosts.push(value)
    // Node reads a header as Latin-1, so each character is one byte.
    if (!isUtf8(Buffer.from(value, 'latin1'))) return malformed(`the header ${name} is not UTF-8`, name)
  }
  const [host, second] = hosts
  if (second !== undefined) return malformed('the request has more than one Host', 'Host')
  if (!host) return malformed(`the request has no Host, which HTTP/${httpVersion} needs here`, 'Host')
  if (!/^(?:\[[^\]\s/?#@\\]+\]|[^\s/?#@\\:]+)(?::\d{0,5})?$/.test(host) || !URL.canParse(`http://${host}`))
    return malformed(`the Host ${quoted(host)} is no name with a port`, 'Host')
  return targetFault(url, host)
}

function targetFault(target: string, host: string): DarkroomError | undefined {
  if (/[^\x21-\x7e]/.test(target)) return malformed('the target holds characters that must be percent-encoded')
  if (target.includes('#')) return malformed('the target holds a fragment (#), which is for the client alone')
  if (!target.startsWith('/')) {
    if (!/^https?:\/\//i.test(target)) return malformed(`the target ${quoted(target)} is neither a path nor an address`)
    if (!URL.canParse(target)) return malformed(`the target ${quoted(target)} is no address`)
    const { host: named, username, password } = new URL(target)
    if (username || password) return malformed('the target names a user, which no address of HTTP may')
    if (named !== new URL(`http://${host}`).host)
      return apiError('host_refused', `the target is at ${named}, the Host is ${quoted(host)}`, { field: 'Host' })
  }
  const [, path = '', query = ''] = /^(?:[a-z]+:\/\/[^/?]*)?([^?]*)(?:\?(.*))?$/i.exec(target) ?? []
  if (path.includes('\\')) return malformed('the path holds a backslash')
  const decoded = decode(path)
  if (decoded === undefined) return malformed('the path has a percent-encoding that is no UTF-8')
  if (/\p{Cc}/u.test(decoded)) return malformed('the path holds a control character')
  for (const part of query.split('&')) {
    if (decode(part.replaceAll('+', ' ')) !== undefined) continue
    const name = decode(part.split('=', 1)[0] ?? '') ?? 'query'
    return malformed(`the query parameter ${quoted(name)} has a percent-encoding that is no UTF-8`, name)
  }
  return undefined
}

/** Undefined for `%zz`, for `%ff`, which is no UTF-8, and for a half of a surrogate pair, `%ed%a0%80`. */
function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

const quoted = (text: string): string => JSON.stringify(text.slice(0, 100))
const malformed = (message: string, field?: string): DarkroomError => apiError('malformed', message, field === undefined ? {} : { field })
