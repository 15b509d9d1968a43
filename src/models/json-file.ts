/** JSON files of model folders: small, shallow, and each fault told with its file and line. */
import { HeaderFault, quote, sizeText, withFile } from './header.ts'

/** Most bytes of a configuration; the index of a model of many shards is the largest. */
const maxBytes = 4 * 1024 * 1024
const maxDepth = 32

export type Json = Record<string, unknown>

/**
 * Reads a file whose JSON is an object. `field` names it in faults, relative to the model.
 * @throws HeaderFault `config` when it is none, and what `withFile` throws
 */
export async function readJsonFile(path: string, field: string): Promise<Json> {
  const text = await withFile(path, async (file) => {
    if (file.size > maxBytes)
      throw new HeaderFault('config', field, `${field} has ${sizeText(file.size)}; a configuration has at most ${sizeText(maxBytes)}.`)
    return (await file.read(0, file.size)).toString('utf8')
  })
  return parseJsonObject(text, field)
}

/** @throws HeaderFault `config` */
export function parseJsonObject(text: string, field: string): Json {
  const fault = (what: string): HeaderFault => new HeaderFault('config', field, `${field} ${what}.`)
  if (text.trim() === '') throw fault('is empty')
  if (text.codePointAt(0) === 0xfeff) throw fault('begins with a byte-order mark; JSON has none')
  if (text.startsWith('version https://git-lfs')) throw fault('is a git-lfs pointer, not the file itself')
  if (isDeep(text)) throw fault(`is nested deeper than ${maxDepth} levels`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw fault(`is no JSON: ${placeOf(error, text)}`)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw fault('holds no object')
  return value as Json
}

/** A text of a configuration, an own property: `__proto__` of a stranger's JSON is one too, and no prototype. */
export const textIn = (json: Json, name: string): string | undefined => {
  const value = Object.hasOwn(json, name) ? json[name] : undefined
  return typeof value === 'string' ? value : undefined
}
export const numberIn = (json: Json, name: string): number | undefined => {
  const value = Object.hasOwn(json, name) ? json[name] : undefined
  return typeof value === 'number' ? value : undefined
}

/** Brackets outside texts; counted before parsing, so that no parser has to go deep. */
function isDeep(text: string): boolean {
  let depth = 0
  let isText = false
  for (let i = 0; i < text.length; i++) {
    const character = text[i]
    if (isText) {
      if (character === '\\') i++
      else if (character === '"') isText = false
    } else if (character === '"') isText = true
    else if (character === '{' || character === '[') depth++
    else if (character === '}' || character === ']') depth--
    if (depth > maxDepth) return true
  }
  return false
}

/** Where parsing stopped, by its line; a comma too many, the commonest fault, by its name. */
function placeOf(error: unknown, text: string): string {
  const found = error instanceof Error ? /position (\d+)/.exec(error.message)?.[1] : undefined
  const at = found === undefined ? text.length : Number(found)
  const before = text.slice(0, at)
  const line = before.split('\n').length
  if (at >= text.trimEnd().length) return `it ends too early, in line ${line}`
  const what =
    /,\s*$/.test(before) && /^[\]}]/.test(text.slice(at)) ? 'a comma too many' : `${quote(text.slice(at, at + 1))} is not expected`
  return `${what}, in line ${line}`
}
