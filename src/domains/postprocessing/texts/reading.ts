/** What a text in a picture says of the request that it was drawn with, as far as it is understood. */
import { samplerOf, scheduleOf, noSampler, noSchedule, settle } from '../../samplers.ts'
import type { AskedPostprocess } from '../settings.ts'
import { ImageRequest, type AdapterPin, type Box, type Control, type Detail, type Hires, type Mask } from '../../values.ts'

/** Programs whose texts are understood. */
export const sources = ['darkroom', 'a1111', 'comfyui', 'invokeai'] as const
export type Source = (typeof sources)[number]

/** Something that was said and is not in the request, with the reason in words. */
export interface Unread {
  name: string
  value: string
  why: string
}

type Plain = Pick<
  ImageRequest,
  | 'prompt'
  | 'negativePrompt'
  | 'width'
  | 'height'
  | 'steps'
  | 'guidance'
  | 'seed'
  | 'sampler'
  | 'schedule'
  | 'sizes'
  | 'strength'
  | 'resize'
  | 'promptSyntax'
  | 'clipSkip'
  | 'guidanceRescale'
  | 'guidanceInterval'
  | 'variation'
>

/** A request as a client may send it: names and ids, where a session's input has pins. */
export interface Asked extends Partial<Plain> {
  model?: string
  picture?: string
  mask?: Partial<Omit<Mask, 'source'>> & { source?: string }
  hires?: AskedPair & Partial<Omit<Hires, keyof AskedPair | 'upscaler'>> & { scale?: number; upscaler?: string }
  detail?: AskedDetail[]
  control?: (Partial<Omit<Control, 'model' | 'picture'>> & { model: string; picture?: string })[]
  references?: string[]
  adapters?: (Omit<AdapterPin, 'model'> & { model: string })[]
  embeddings?: string[]
  promptAdapters?: boolean
  postprocess?: AskedPostprocess[]
}
export type AskedPair = Pick<Partial<Plain>, 'sampler' | 'schedule'>
export type AskedDetail = Omit<Detail, 'source' | 'width' | 'height'> & { box?: Box; mask?: string; size: Pick<Detail, 'width' | 'height'> }

/** How much of a value that was not understood is told, and how many values are. */
const mostTold = 500
const mostUnread = 200

export class Reading {
  readonly source: Source
  readonly input: Asked = {}
  readonly unread: Unread[] = []
  /** The first digits of the model's hash, as the text has them. */
  modelHash: string | null = null

  constructor(source: Source) {
    this.source = source
  }

  lost(name: string, value: unknown, why: string): void {
    if (this.unread.length >= mostUnread) return
    const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? 'nothing')
    const told = text.length > mostTold ? `${text.slice(0, mostTold)}…` : text
    this.unread.push({ name: name.slice(0, 100), value: Buffer.from(told).toString(), why })
  }

  /** Takes a value where a request may have it. `name`: as the text calls it. */
  take<Field extends keyof Plain>(field: Field, name: string, value: unknown): void {
    const parsed = ImageRequest.shape[field].safeParse(value)
    if (parsed.success && parsed.data !== undefined) this.input[field] = parsed.data as Asked[Field]
    else this.lost(name, value, `it is no ${field} that a request may have`)
  }

  /** The same of a number that the text has as digits. */
  takeNumber(
    field: 'steps' | 'guidance' | 'seed' | 'strength' | 'width' | 'height' | 'clipSkip' | 'guidanceRescale',
    name: string,
    text: string,
  ): void {
    this.take(field, name, numberOf(text) ?? text)
  }

  /** A sampler and perhaps a schedule, by any of their names, into the request or its second pass. */
  takePair(target: AskedPair, { sampler, schedule }: Named, names: { sampler: string; schedule: string }): void {
    const pair = sampler === undefined ? undefined : samplerOf(sampler)
    if (sampler !== undefined && !pair) this.lost(names.sampler, sampler, noSampler(sampler))
    const spread = schedule === undefined ? undefined : scheduleOf(schedule)
    if (schedule !== undefined && !spread) this.lost(names.schedule, schedule, noSchedule(schedule))
    if (!pair) {
      if (spread && spread !== 'Automatic') target.schedule = spread
      return
    }
    const settled = settle(pair, spread)
    if (typeof settled === 'string') {
      this.lost(names.schedule, schedule ?? pair.schedule, settled)
      target.sampler = pair.sampler
      return
    }
    target.sampler = settled.sampler
    if (settled.schedule && settled.schedule !== 'Automatic') target.schedule = settled.schedule
  }
}

interface Named {
  sampler?: string | undefined
  schedule?: string | undefined
}

/** A number from its digits; undefined for anything else. */
export const numberOf = (text: string): number | undefined =>
  /^-?\d{1,20}(\.\d{1,20})?(e-?\d{1,3})?$/i.test(text.trim()) ? Number(text) : undefined

/** `512x768`. */
export function sizeFrom(text: string): { width: number; height: number } | undefined {
  const [, width, height] = /^(\d{1,6})x(\d{1,6})$/.exec(text.trim()) ?? []
  return width && height ? { width: Number(width), height: Number(height) } : undefined
}

/** How deep the JSON of a text may be nested. */
const deepest = 100

/**
 * The value of JSON that a stranger wrote.
 * @throws Error that says why there is none: it is no JSON, or nested too deeply
 */
export function jsonOf(text: string): unknown {
  let depth = 0
  let isText = false
  for (let at = 0; at < text.length; at++) {
    const letter = text[at]
    if (isText) {
      if (letter === '\\') at++
      else if (letter === '"') isText = false
    } else if (letter === '"') isText = true
    else if (letter === '{' || letter === '[') {
      if (++depth > deepest) throw new Error(`it is nested more than ${deepest} deep`)
    } else if (letter === '}' || letter === ']') depth--
  }
  try {
    return JSON.parse(text) as unknown
  } catch {
    throw new Error('it is no JSON')
  }
}

export type Fields = Readonly<Record<string, unknown>>

export const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value)

/** A field of its own; never one that every object has, such as `constructor`. */
export const fieldOf = (fields: unknown, name: string): unknown =>
  isFields(fields) && Object.hasOwn(fields, name) ? fields[name] : undefined

/** A text of one of these names. */
export const textOf = (fields: unknown, name: string): string | undefined => {
  const value = fieldOf(fields, name)
  return typeof value === 'string' ? value : undefined
}

/** What a text says of settings, by their names. */
export type Settings = ReadonlyMap<string, string>

/** A setting of such a text. */
export interface Setting {
  name: string
  /** Undefined where there is nothing to say. */
  write?(request: ImageRequest): string | number | undefined
  read(value: string, reading: Reading, all: Settings): void
}
