/**
 * The exactness key over the facts as Python makes them: python/tests/test_exactness.py compares the fixture with
 * Python's own.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import { pngEncoder } from '../../src/domains/postprocessing/png.ts'
import { exactnessOf } from '../../src/workers/exactness.ts'
import { decodeReply, type Ready } from '../../src/workers/python/protocol.ts'

const fixture = JSON.parse(readFileSync(join(root, 'test/fixtures/protocol/hello-result.json'), 'utf8')) as { wire: object }
const reply = decodeReply(Buffer.from(JSON.stringify(fixture.wire)))
if (reply.kind !== 'reply' || reply.data.type !== 'result') throw new Error('the fixture is no result')
const { facts } = reply.data.output as Ready

it('the key of given facts is what it was in every version with this PNG writer', () => {
  expect(pngEncoder()).toBe('darkroom 2, zlib 42e3cc56')
  expect(exactnessOf(facts).key).toBe('01472368')
})

it('does not depend on the order of the facts, and on every one of them', () => {
  const reversed = Object.fromEntries(Object.entries(facts).toReversed()) as Ready['facts']
  expect(exactnessOf(reversed).key).toBe(exactnessOf(facts).key)
  const changed = Object.entries(facts).flatMap(([group, its]) =>
    Object.keys(its).map((name) => exactnessOf({ ...facts, [group]: { ...its, [name]: 'other' } }).key),
  )
  expect(new Set([exactnessOf(facts).key, ...changed]).size).toBe(changed.length + 1)
})

it('the receipt names the facts that Python compares, and the PNG encoder', () => {
  expect(exactnessOf(facts).facts).toEqual({ ...facts, build: { ...facts.build, png: pngEncoder() } })
})
