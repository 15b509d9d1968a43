/**
 * Markup as a room of the page tells it: elements and texts, and by names with a capital the page's own parts
 * (`src/web/told.tsx`). It is JSON and never becomes a string of markup, so what strangers wrote stays text.
 */
import { z } from 'zod'

export interface Element {
  /** A tag, or a part of the page. */
  is: string
  has?: Readonly<Record<string, unknown>> | undefined
  of?: readonly Markup[] | undefined
}
export type Markup = string | number | Element

/** What may stand in an element: what is nothing is left out, lists stand one after the other. */
export type Inside = Markup | null | undefined | false | readonly Inside[]

export const Markup: z.ZodType<Markup> = z.lazy(() =>
  z.union([
    z.string(),
    z.number(),
    z
      .strictObject({
        is: z.string().meta({ description: 'a tag, or a part of the page, with a capital' }),
        has: z.record(z.string(), z.unknown()).optional().meta({ description: 'attributes; `key` tells one of a list' }),
        of: z.array(Markup).optional(),
      })
      .meta({ id: 'Element' }),
  ]),
)

export const RoomView = z
  .strictObject({ markup: Markup, everyMs: z.int().meta({ description: 'after how long it is worth asking again' }) })
  .meta({ id: 'Room' })

export function el(is: string, has: Readonly<Record<string, unknown>> = {}, ...inside: readonly Inside[]): Element {
  const of = flat(inside)
  return { is, ...(Object.keys(has).length > 0 && { has }), ...(of.length > 0 && { of }) }
}

const flat = (inside: Inside): Markup[] => {
  if (Array.isArray(inside)) return (inside as readonly Inside[]).flatMap(flat)
  return inside === null || inside === undefined || inside === false || inside === '' ? [] : [inside as Markup]
}

/** An element that has a class and nothing else, by its tag. */
const classed =
  (tag: string) =>
  (name: string, ...inside: readonly Inside[]): Element =>
    el(tag, { class: name }, ...inside)
export const [div, span, p, ul, ol] = ['div', 'span', 'p', 'ul', 'ol'].map(classed) as [Make, Make, Make, Make, Make]
type Make = (name: string, ...inside: readonly Inside[]) => Element

/** A room with its name, what stands beside that, and what is in it. */
export const room = (name: string, title: string, bar: Inside, ...inside: readonly Inside[]): Element =>
  el(
    'section',
    { class: `${name} room`, 'aria-labelledby': 'room-name' },
    el('header', { class: 'bar' }, el('h1', { id: 'room-name' }, title), bar),
    ...inside,
  )

export const small = (...inside: readonly Inside[]): Element => el('small', {}, ...inside)
export const hint = (...inside: readonly Inside[]): Element => p('hint', ...inside)
export const verbs = (...inside: readonly Inside[]): Element => div('verbs', ...inside)

/** A link to a room of the page, by its name and what of it. */
export const linkTo = (name: string, of = ''): string => `#/${name}${of && `/${encodeURIComponent(of)}`}`
export const link = (href: string, ...inside: readonly Inside[]): Element => el('a', { href }, ...inside)
export const button = (href: string, ...inside: readonly Inside[]): Element => el('a', { class: 'button', href }, ...inside)

/** A row that opens. */
export const opening = (summary: Inside, ...inside: readonly Inside[]): Element => el('details', {}, el('summary', {}, summary), ...inside)

/** A state as a colour; it stands beside its name. */
export const dot = (state: string): Element => el('i', { class: `dot ${state}`, 'aria-hidden': 'true' })

/** A time as the clock of whoever looks has it; `whole`: with its date. */
export const time = (at: string, isWhole = false): Element => el('Time', { at, isWhole })

/** What there is of these, in one line. */
export const listed = (...parts: readonly (string | false | null | undefined)[]): string => parts.filter(Boolean).join(' · ')

export const plural = (count: number, word: string, words = `${word}s`): string =>
  `${count.toLocaleString('en')} ${count === 1 ? word : words}`

/** A request of the page's. `to`: the room that shows what is answered. `wait`: at most so many seconds for its end. */
export interface Sent {
  method?: 'POST' | 'PUT' | 'DELETE'
  path: string
  body?: object
  wait?: number
  to?: string
}

/** A button that sends. `sure`: what it is done to; the page then asks once more. */
export const act = (name: string, send: Sent, more: { sure?: string; 'aria-label'?: string } = {}): Element =>
  el('Act', { send, ...more }, name)

/** A form that sends what is written in it, by the names of its fields; `input.steps` is `steps` of `input`. */
export const form = (name: string, title: string, send: Sent, ...fields: readonly Inside[]): Element =>
  el(
    'Send',
    { class: 'panel', 'aria-label': title, send },
    el('h2', {}, title),
    ...fields,
    el('button', { class: 'main', type: 'submit' }, name),
  )

/** What a control is for, above it: an input of these attributes, or what stands inside. */
export const field = (label: string, has: Readonly<Record<string, unknown>>, ...inside: readonly Inside[]): Element =>
  el('label', { class: 'field' }, el('span', {}, label), ...(inside.length > 0 ? inside : [el('input', has)]))

export const select = (has: Readonly<Record<string, unknown>>, names: readonly string[], none?: string): Element =>
  el(
    'select',
    has,
    none !== undefined && el('option', { value: '' }, none || ' '),
    names.map((name) => el('option', { value: name, defaultSelected: name === has['defaultValue'] }, name)),
  )

/** The first cell of a row names it. */
export const table = (caption: string, heads: readonly Inside[], rows: readonly (readonly [key: string, ...Inside[]])[]): Element =>
  el(
    'table',
    { class: 'plain-table' },
    caption && el('caption', {}, caption),
    el(
      'thead',
      {},
      el(
        'tr',
        {},
        heads.map((head) => el('th', { scope: 'col' }, head)),
      ),
    ),
    el(
      'tbody',
      {},
      rows.map(([key, name, ...cells]) =>
        el(
          'tr',
          { key },
          el('th', { scope: 'row' }, name),
          cells.map((cell) => el('td', {}, cell)),
        ),
      ),
    ),
  )
