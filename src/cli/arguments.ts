/** Values of options and arguments, as they are typed. Each throws InvalidArgumentError, which says what it must be. */
import { InvalidArgumentError } from 'commander'
import type { Box } from '../domains/values.ts'
import { parseSize } from './bars.ts'

export const whole =
  (low: number, high: number) =>
  (text: string): number => {
    const value = Number(text)
    if (!/^\d+$/.test(text) || value < low || value > high) throw new InvalidArgumentError(`must be a whole number from ${low} to ${high}`)
    return value
  }

export const decimal = (text: string): number => {
  if (!/^\d+(\.\d+)?$/.test(text)) throw new InvalidArgumentError('must be a number')
  return Number(text)
}

/** The same, below zero too. */
export const leaning = (text: string): number => (text.startsWith('-') ? -decimal(text.slice(1)) : decimal(text))

type Adapter = { model: string; weight?: number; textWeight?: number }

/** NAME, NAME:WEIGHT or NAME:WEIGHT:TEXT-WEIGHT, after those before. */
export const adapter = (text: string, before: Adapter[] = []): Adapter[] => {
  const [model = '', ...weights] = text.split(':')
  const [weight, textWeight] = weights.map(Number)
  if (model === '' || weights.length > 2 || weights.some((each) => !/^-?\d+(\.\d+)?$/.test(each)))
    throw new InvalidArgumentError('must be like pastel, pastel:0.8, or pastel:0.8:0.5 with the text encoders’ weight last')
  return [...before, { model, ...(weight !== undefined && { weight }), ...(textWeight !== undefined && { textWeight }) }]
}

export const size = (text: string): { width: number; height: number } => {
  const [, width, height] = /^(\d+)[x×](\d+)$/.exec(text) ?? []
  if (!width || !height) throw new InvalidArgumentError('must be like 128x192')
  return { width: Number(width), height: Number(height) }
}

/** `64x48+8+16`, as ImageMagick writes a region. */
export const boxes = (text: string, before: Box[] = []): Box[] => {
  const [width, height, left, top] = (/^(\d+)[x×](\d+)\+(\d+)\+(\d+)$/.exec(text) ?? []).slice(1).map(Number)
  if (width === undefined || height === undefined || left === undefined || top === undefined)
    throw new InvalidArgumentError('must be like 64x64+32+16: width, height, left, top')
  return [...before, { left, top, width, height }]
}

/** `20`: so many; `100-119`: those. */
export const seeds = (text: string): { from?: number; count: number } => {
  const [, first = '', last] = /^(\d+)(?:-(\d+))?$/.exec(text) ?? []
  const [from, to] = [Number(first), Number(last ?? first)]
  if (first === '' || to < from || (last === undefined && from === 0)) throw new InvalidArgumentError('must be like 20, or like 100-119')
  return last === undefined ? { count: from } : { from, count: to - from + 1 }
}

export const policy = (text: string): string | number => {
  if (text === 'continue' || text === 'stop') return text
  if (!/^[1-9]\d{0,4}$/.test(text)) throw new InvalidArgumentError('must be continue, stop, or how many may fail')
  return Number(text)
}

export const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text) as unknown
  } catch {
    throw new InvalidArgumentError('must be JSON, as in \'{"by": "Ada"}\'')
  }
}

export const bytes = (text: string): number => {
  const value = parseSize(text)
  if (value === undefined) throw new InvalidArgumentError('must be a size like 4096, 64MiB or 1.5GiB')
  return value
}

/** `steps=20`: the first `=` ends the name. */
export const field = (text: string, before: ReadonlyMap<string, string> = new Map()): ReadonlyMap<string, string> => {
  const [, name, value = ''] = /^([^=\s]+)=(.*)$/s.exec(text) ?? []
  if (name === undefined) throw new InvalidArgumentError('must be like steps=20')
  if (before.has(name)) throw new InvalidArgumentError(`${name} stands twice`)
  return new Map([...before, [name, value]])
}

export const collect = (value: string, before: string[] = []): string[] => [...before, value]
