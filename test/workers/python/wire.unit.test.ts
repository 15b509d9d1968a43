/** The schema that Python checks frames with: generated, and complete. */
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { opaque } from '../../../src/workers/python/protocol.ts'
import { schemaFile, schemaText } from '../../../src/workers/python/wire.ts'

/** Every object of the schema with the name of the field that it is the value of. */
function* objects(value: unknown, field = ''): Generator<[string, Record<string, unknown>]> {
  if (value === null || typeof value !== 'object') return
  if (Array.isArray(value)) {
    for (const item of value) yield* objects(item, field)
    return
  }
  const object = value as Record<string, unknown>
  yield [field, object]
  for (const [key, item] of Object.entries(object))
    if (key === 'properties') for (const [name, schema] of Object.entries(item as object)) yield* objects(schema, name)
    else yield* objects(item, field)
}

it('python/darkroom/schema.json is as the declarations say: `npm run format` writes it', () => {
  expect(readFileSync(schemaFile, 'utf8') === schemaText()).toBe(true)
})

it('every field is snake_case, and every map of chosen names is left as it is by both sides', () => {
  const found = [...objects(JSON.parse(schemaText()))]
  expect(found.length).toBeGreaterThan(200)
  const maps = found.filter(([, { type, additionalProperties }]) => type === 'object' && additionalProperties !== false)
  // `data` is the frame's own payload: each action has a schema for it; `files` are those with a number.
  expect(new Set(maps.map(([field]) => field))).toEqual(new Set([...opaque, 'data', 'files']))
  for (const [field] of found) expect(field).toMatch(/^[a-z0-9_]*$/)
})
