import { createHash } from 'node:crypto'
import { pngEncoder } from '../domains/postprocessing/png.ts'
import type { Exactness } from '../domains/values.ts'
import type { Ready } from './python/protocol.ts'

/**
 * Exactness key: what decides the bits of a picture (hardware class, build, settings, PNG encoder), hashed. The facts go into the file's
 * receipt, so they hold nothing that differs between two devices of one class.
 */
export function exactnessOf({ build, hardware, settings }: Pick<Ready, 'build' | 'hardware' | 'settings'>): Exactness {
  const { kind, name, capability, driver, arch, vector, math, threads } = hardware
  const hardwareClass = kind === 'cpu' ? { kind, arch, vector, math, threads } : { kind, name, capability, driver, math, threads }
  const { python: _python, ...decisive } = build
  const facts = { hardware: hardwareClass, build: { ...decisive, png: pngEncoder }, settings }
  return {
    key: createHash('sha256').update(canonical(facts)).digest('hex').slice(0, 8),
    facts: JSON.parse(canonical(facts)) as Record<string, unknown>,
  }
}

/** JSON with sorted keys. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const entries = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1))
  return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${canonical(item)}`).join(',')}}`
}
