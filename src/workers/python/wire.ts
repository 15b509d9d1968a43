/**
 * The protocol as Python reads it: JSON Schema (draft 7) of every frame in its wire form, with the facts that both
 * sides share beside it. `npm run format` writes it to `python/darkroom/schema.json`. Both sides send the SHA-256 of
 * what they have in the handshake, and refuse to start on a difference.
 */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { z } from 'zod'
import { root } from '../../config.ts'
import { operations } from '../../domains/index.ts'
import { samplers, samplerTable, schedules, schedulesOf, type SamplerRow } from '../../domains/samplers.ts'
import { errorCatalogue } from '../../errors.ts'
import { families, flowSamplers, stepCached } from '../../models/families.ts'
import { preprocessorClasses } from '../../models/rules/preprocessors.ts'
import { unpackable } from '../../models/quantisation.ts'
import { Envelope, heartbeatS, lineCap, protocolVersion, replies, requests, results, snake, unasked } from './protocol.ts'

/** Where Python reads it. */
export const schemaFile = join(root, 'python', 'darkroom', 'schema.json')

let text: string | undefined

/** The text of the file, as it has to be. */
export function schemaText(): string {
  text ??= `${JSON.stringify(wireSchema(), null, 1)}\n`
  return text
}

/** SHA-256 of the text: 64 hex digits. */
export const schemaSha256 = (): string => createHash('sha256').update(schemaText()).digest('hex')

function wireSchema(): Record<string, unknown> {
  return {
    protocol: protocolVersion,
    line_cap: lineCap,
    heartbeat_s: heartbeatS,
    envelope: toWire(Envelope),
    requests: each(requests),
    unasked: each(unasked),
    replies: each(replies),
    results: each(results),
    errors: childErrors(),
    samplers: samplerRows(),
    schedules,
    flow_samplers: flowSamplers,
    step_cached: stepCached,
    gguf_types: unpackable,
    families,
    /** What a preprocessor sees, by its class. */
    preprocessors: Object.fromEntries(Object.entries(preprocessorClasses).map(([name, { task }]) => [name, task])),
  }
}

/** Each sampler's class, what it is made with, the schedules it takes, and its pairs that have a name of their own. */
function samplerRows(): Record<string, unknown> {
  const rows = samplers.map((name) => {
    const row: SamplerRow = samplerTable[name]
    return [name, { class: row.class, options: row.options ?? {}, schedules: schedulesOf(name), named: row.named ?? {} }]
  })
  return Object.fromEntries(rows)
}

/** Codes of the families that the child may raise, each with its class and remedy. */
function childErrors(): Record<string, { class: string; remedy: string }> {
  const domains = Object.keys(operations).map((name) => name.split('.')[0])
  const raised = new Set<string | undefined>(['artifact', 'disk', 'safety', 'session', 'worker', ...domains])
  const entries = [...errorCatalogue].filter(([code]) => raised.has(code.split('.')[0]))
  return Object.fromEntries(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)))
}

const each = (schemas: Record<string, z.ZodType>) =>
  Object.fromEntries(Object.entries(schemas).map(([name, schema]) => [name, toWire(schema)]))

function toWire(schema: z.ZodType): unknown {
  const { $schema: _, ...document } = z.toJSONSchema(schema, { target: 'draft-7' })
  return renamed(document)
}

/** Field names of a JSON Schema in snake_case. */
function renamed(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(renamed)
  if (schema === null || typeof schema !== 'object') return schema
  return Object.fromEntries(
    Object.entries(schema).map(([key, value]) => {
      if (key === 'properties')
        return [key, Object.fromEntries(Object.entries(value as object).map(([name, field]) => [snake(name), renamed(field)]))]
      if (key === 'required') return [key, (value as string[]).map(snake)]
      return [key, renamed(value)]
    }),
  )
}
