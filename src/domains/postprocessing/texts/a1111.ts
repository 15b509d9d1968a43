/**
 * The `parameters` text as AUTOMATIC1111's web UI writes and reads it (`modules/infotext_utils.py` there), and with it
 * Forge, SD.Next and many others: prompt, negative prompt, then one line of settings.
 */
import type { ImageRequest } from '../../values.ts'
import { tagsOf } from '../adapter-text.ts'
import { hasHires, settings, silent } from './a1111-settings.ts'
import { Reading, type Settings } from './reading.ts'
import { askedOf } from './receipt.ts'

const negative = 'Negative prompt: '
/** A last line with fewer settings is part of the prompt, as that program has it. */
const fewestSettings = 3
const mostSettings = 500

const settingsByName = new Map(settings.map((setting) => [setting.name, setting]))

/** The text of a request; every field of it stands there. */
export function infotext(request: ImageRequest): string {
  const said = settings.flatMap((setting) => {
    const value = setting.write?.(request)
    return value === undefined ? [] : [`${setting.name}: ${quoted(String(value))}`]
  })
  const prompt = request.prompt + tagsOf(askedOf(request).adapters ?? [])
  return [prompt, ...(request.negativePrompt ? [`${negative}${request.negativePrompt}`] : []), said.join(', ')].join('\n')
}

const quoted = (value: string): string => (/[,\n:"]|^\s|\s$|^$/.test(value) ? JSON.stringify(value) : value)

/** Whether it is such a text at all: it ends with a line of settings. */
export const isInfotext = (text: string): boolean => pairsOf(text.slice(text.lastIndexOf('\n') + 1)).size >= fewestSettings

/** The request that a text tells, and what it says besides. A text of another form is nothing but a prompt. */
export function readInfotext(text: string): Reading {
  const reading = new Reading('a1111')
  const unified = text.replaceAll('\r\n', '\n').trimEnd()
  const lastLine = unified.lastIndexOf('\n')
  const all = pairsOf(unified.slice(lastLine + 1))
  const isComplete = all.size >= fewestSettings
  const prompts = isComplete ? unified.slice(0, Math.max(0, lastLine)) : unified
  const isFirst = prompts.startsWith(negative)
  const at = isFirst ? 0 : prompts.indexOf(`\n${negative}`)
  reading.take('prompt', 'prompt', at === -1 ? prompts : prompts.slice(0, at))
  if (at !== -1) reading.take('negativePrompt', 'Negative prompt', prompts.slice(at + (isFirst ? 0 : 1) + negative.length))
  if (!isComplete) return reading
  for (const [name, value] of all) {
    const setting = settingsByName.get(name)
    if (setting) setting.read(value, reading, all)
    else if (!silent.includes(name)) reading.lost(name, value, unknown(name))
  }
  if (hasHires(all)) readHiresPair(reading, all)
  readAdapters(reading)
  withoutPicture(reading)
  return reading
}

/** In a text of that program they stand in the prompt alone; ours has them beside it too. */
function readAdapters({ input }: Reading): void {
  const { adapters = [], prompt = '' } = input
  const tags = tagsOf(adapters)
  if (adapters.length > 0 && prompt.endsWith(tags)) input.prompt = prompt.slice(0, -tags.length)
  else if (prompt.includes('<lora:')) input.promptAdapters = true
}

function readHiresPair(reading: Reading, all: Settings): void {
  const [sampler, schedule] = [all.get('Hires sampler'), all.get('Hires schedule type')]
  const hires = (reading.input.hires ??= {})
  const isOwn = sampler !== undefined && !/^use same/i.test(sampler)
  const isSpread = schedule !== undefined && !/^use same/i.test(schedule)
  if (!isOwn && !isSpread) return
  const own = {
    sampler: isOwn ? sampler : all.get('Sampler'),
    schedule: isSpread ? schedule : isOwn ? undefined : all.get('Schedule type'),
  }
  reading.takePair(hires, own, { sampler: 'Hires sampler', schedule: 'Hires schedule type' })
}

/** What is said of a picture is no request without it: the text of another program does not name its bytes. */
function withoutPicture(reading: Reading): void {
  const { input } = reading
  if (input.picture !== undefined) return
  const why = 'it is said of a picture that the text does not name: send that picture too'
  for (const field of ['strength', 'resize', 'mask'] as const) {
    if (input[field] === undefined) continue
    reading.lost(field, input[field], why)
    delete input[field]
  }
}

const others: Record<string, string> = {
  RNG: 'noise is drawn on the CPU, as `RNG: CPU` says it',
  ENSD: 'a seed is taken as it is',
  Refiner: 'there is no second model in one request',
}
const unknown = (name: string): string => others[name] ?? 'image-generation has no such setting'

/**
 * `key: value` pairs, separated by commas; a value may be JSON's text. As that program's pattern finds them, in one
 * pass: a pattern would look at a long line of anything again and again.
 */
function pairsOf(line: string): Map<string, string> {
  const pairs = new Map<string, string>()
  let at = 0
  while (at < line.length && pairs.size < mostSettings) {
    const colon = line.indexOf(':', at)
    if (colon === -1) break
    const key = line.slice(Math.max(at, line.lastIndexOf(',', colon) + 1), colon).trim()
    let start = colon + 1
    while (line[start] === ' ') start++
    const end = line[start] === '"' ? endOfText(line, start) : undefined
    const comma = line.indexOf(',', end ?? start)
    const stop = comma === -1 ? line.length : comma
    const value = end === undefined ? line.slice(start, stop).trim() : unquoted(line.slice(start, end))
    if (/^[\p{L}\p{N}_][\p{L}\p{N}_ \-/]{0,60}$/u.test(key) && !pairs.has(key)) pairs.set(key, value)
    at = stop + 1
  }
  return pairs
}

/** Behind the quotation mark that ends a text; undefined where none does. */
function endOfText(line: string, start: number): number | undefined {
  for (let at = start + 1; at < line.length; at++) {
    if (line[at] === '\\') at++
    else if (line[at] === '"') return at + 1
  }
  return undefined
}

function unquoted(text: string): string {
  try {
    return String(JSON.parse(text))
  } catch {
    return text
  }
}
