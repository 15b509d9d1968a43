/**
 * Traces of sessions (W3C Trace Context): which trace one belongs to follows from its record alone, so every process
 * that ever touches it names the same one.
 */
import { createHash } from 'node:crypto'

const digest = (text: string, bytes: number): string =>
  createHash('sha256')
    .update(text)
    .digest('hex')
    .slice(0, 2 * bytes)

/** 32 hexadecimal digits, and the span that caused the session, 16; null where it is the first of its trace. */
export interface Trace {
  id: string
  parent: string | null
}

/** `trace` of a session's record is `<trace id>-<span id>`; one that has none is the first span of its own trace. */
export function traceOf(session: string, recorded: string | null | undefined): Trace {
  const [id = '', parent] = recorded?.split('-') ?? []
  return id === '' || parent === undefined ? { id: digest(session, 16), parent: null } : { id, parent }
}

/** Of a session by its id, of an attempt by its own. */
export const spanIdOf = (of: string): string => digest(`span ${of}`, 8)

/** What the record of a child session says. */
export const traceOfChild = (parent: string, recorded: string | null | undefined): string =>
  `${traceOf(parent, recorded).id}-${spanIdOf(parent)}`

/** The header of a request as a record has it; undefined for one that is missing or broken, which counts as missing. */
export function traceIn(traceparent: string | undefined): string | undefined {
  const [, version, id = '', span = ''] = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?$/.exec(traceparent ?? '') ?? []
  return version === undefined || version === 'ff' || /^0+$/.test(id) || /^0+$/.test(span) ? undefined : `${id}-${span}`
}
