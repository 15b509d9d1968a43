/** Bodies of requests: JSON in UTF-8, read once, and nothing of it dropped or changed in silence. */
import type { Context, MiddlewareHandler } from 'hono'
import { apiError, invalidFields, type FieldProblem } from '../errors.ts'
import type { AppEnv } from './context.ts'

const maxDepth = 64
/** As many faults as an answer names. */
const maxFaults = 20

/**
 * Middleware: reads the body, and refuses what `JSON.parse` and the schemas would take in silence.
 * @throws DarkroomError `api.unsupported_media_type`, `api.malformed`, `api.invalid`
 */
export const readBody: MiddlewareHandler<AppEnv> = async (c, next) => {
  if (c.req.raw.body) {
    const type = c.req.header('content-type')
    if (type !== undefined) {
      checkMediaType(type)
      // What the routes' own, narrower pattern takes.
      c.req.raw.headers.set('content-type', 'application/json')
    }
    const text = decode(await c.req.arrayBuffer())
    if (text.trim() !== '') checkJson(text)
  }
  await next()
}

function decode(bytes: ArrayBuffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (error) {
    throw apiError('malformed', 'the body is not UTF-8', { field: 'body', cause: error })
  }
}

const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
/** White space stands behind each part alone: in two places it would be tried in every division. */
const parameter = `;\\s*(?:(${token})=(${token}|"(?:[^"\\\\]|\\\\.)*")\\s*)?`
const mediaType = new RegExp(`^${token}/${token}\\s*(?:${parameter})*$`)

/**
 * RFC 9110, 8.3.1. The guard has seen that the type itself is JSON.
 * @throws DarkroomError `api.unsupported_media_type`
 */
export function checkMediaType(text: string): void {
  const refuse = (why: string) => apiError('unsupported_media_type', why, { field: 'Content-Type' })
  if (!mediaType.test(text.trim())) throw refuse(`the Content-Type ${JSON.stringify(text.slice(0, 100))} is none`)
  for (const [, name, value = ''] of text.matchAll(new RegExp(parameter, 'g'))) {
    if (name?.toLowerCase() !== 'charset') continue
    const charset = value.replace(/^"(.*)"$/s, '$1').replaceAll(/\\(.)/gs, '$1')
    if (!/^utf-?8$/i.test(charset)) throw refuse(`the charset ${JSON.stringify(charset.slice(0, 100))} is not accepted: JSON is UTF-8`)
  }
}

/** @throws DarkroomError `api.malformed`, or `api.invalid` with every fault of `faultsOf` */
function checkJson(text: string): void {
  try {
    JSON.parse(text)
  } catch (error) {
    throw apiError('malformed', 'the body is not well-formed JSON', { cause: error })
  }
  const faults = faultsOf(text)
  if (faults.length > 0) throw invalidFields(faults)
}

interface Level {
  /** Names met so far; undefined in an array. */
  names: Set<string> | undefined
  at: string | number
  /** The next string is a name. */
  isName: boolean
}

const tokens = /[{}[\],:]|"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g

/**
 * What a parser would take from well-formed JSON without a word: a name that stands twice (the last wins), `__proto__`
 * (left out by every schema), half of a surrogate pair (no text: nobody can write it in UTF-8), a number that changes
 * when it is read, a nesting that exhausts the stack of whoever writes it. It walks over the tokens and does not call
 * itself, so depth costs nothing; that is why it is no visitor of a library.
 */
export function faultsOf(text: string): FieldProblem[] {
  const levels: Level[] = []
  const faults: FieldProblem[] = []
  const fault = (message: string): void => {
    const field = levels.map(({ at }) => String(at)).join('.') || 'body'
    faults.push({ field: field.slice(0, 200), message })
  }
  for (const [token] of text.matchAll(tokens)) {
    const level = levels.at(-1)
    if (faults.length === maxFaults) break
    if (token === '{' || token === '[') {
      if (levels.length === maxDepth) {
        fault(`is nested more than ${maxDepth} levels deep`)
        break
      }
      levels.push(token === '{' ? { names: new Set(), at: '', isName: true } : { names: undefined, at: 0, isName: false })
    } else if (token === '}' || token === ']') levels.pop()
    else if (token === ',' && level) {
      if (typeof level.at === 'number') level.at++
      else level.isName = true
    } else if (token.startsWith('"')) {
      const value = JSON.parse(token) as string
      if (level?.names && level.isName) {
        level.isName = false
        level.at = value
        if (level.names.has(value)) fault('stands twice')
        level.names.add(value)
        if (value === '__proto__') fault('there is no such field')
      }
      if (/\p{Cs}/u.test(value)) fault('holds half of a surrogate pair, which is no text')
    } else if (/^[-\d]/.test(token)) {
      const change = changeOf(token)
      if (change !== undefined) fault(change)
    }
  }
  return faults
}

/** How a number changes when it becomes a double; undefined when it does not, or by rounding of its fraction only. */
function changeOf(source: string): string | undefined {
  const value = Number(source)
  if (!Number.isFinite(value)) return `is beyond ±${Number.MAX_VALUE}`
  const [mantissa = '', exponent] = source.split(/e/i)
  const [, fraction = ''] = mantissa.split('.')
  if (value === 0 && /[1-9]/.test(mantissa)) return 'is too small to be told from 0'
  if (exponent !== undefined) return undefined
  if (fraction === '' && BigInt(source) !== BigInt(value)) return `would lose digits: it would become ${value}`
  if (/[1-9]/.test(fraction) && Number.isInteger(value)) return 'has more digits than a number holds'
  return undefined
}

/**
 * A verb takes no fields: a caller that sends one would be misunderstood.
 * @throws DarkroomError `api.invalid`
 */
export async function refuseBody(c: Context<AppEnv>): Promise<void> {
  const text = (await c.req.text()).trim()
  if (text === '') return
  const body = JSON.parse(text) as unknown
  const fields = typeof body === 'object' && body !== null && !Array.isArray(body) ? Object.keys(body) : ['body']
  if (fields.length > 0) throw invalidFields(fields.map((field) => ({ field, message: 'this request takes no body fields' })))
}
