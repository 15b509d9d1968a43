/**
 * The exactness key: what decides the bits of a picture, hashed. Python knows the facts (`facts` in
 * python/darkroom/exactness.py: hardware class, build, settings); what the node adds is its PNG encoder.
 */
import { createHash } from 'node:crypto'
import { pngEncoder } from '../domains/postprocessing/png.ts'
import type { Exactness } from '../domains/values.ts'
import type { Ready } from './python/protocol.ts'

/**
 * `facts` as the child sent them; those returned go into the file's receipt. The key is the first 8 hex digits of their
 * SHA-256.
 */
export function exactnessOf(facts: Ready['facts']): Exactness {
  return keyed({ ...facts, build: { ...facts.build, png: pngEncoder() } })
}

/**
 * With other settings: of a picture whose autoencoder computed in tiles, `tiling`; of one whose bytes are not promised,
 * its `class`. The same where there are none.
 */
export function exactnessWith({ facts }: Exactness, settings: Record<string, boolean | string>): Exactness {
  return keyed({ ...facts, settings: { ...(facts['settings'] as object), ...settings } })
}

function keyed(facts: Record<string, unknown>): Exactness {
  const text = canonical(facts)
  return { key: createHash('sha256').update(text).digest('hex').slice(0, 8), facts: JSON.parse(text) as Record<string, unknown> }
}

/** JSON with sorted keys. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const entries = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1))
  return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${canonical(item)}`).join(',')}}`
}
