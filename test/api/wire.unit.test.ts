import { describe, expect, it } from 'vitest'
import { isKnown, rangeOf } from '../../src/api/artifacts/conditional.ts'
import { checkMediaType, faultsOf } from '../../src/api/body.ts'
import { asksForStream } from '../../src/api/stream.ts'
import { preferredWaitS } from '../../src/api/wait.ts'

describe('faults of JSON', () => {
  it('of what is good there are none', () => {
    const value = {
      a: [1, -0, 1.5, 1e20, 9007199254740991, -9007199254740991, 0.1, 1e-300, 0],
      b: { a: '{"a":1,"a":2}', '': null },
      c: '😀"\\',
    }
    expect(faultsOf(JSON.stringify(value, null, 2))).toEqual([])
    expect(faultsOf('[{"a":1},{"a":2,"b":[{"a":3}]}]')).toEqual([])
    expect(faultsOf('{"x":5e0,"y":5.000,"z":0e99,"w":-0.0}')).toEqual([])
  })

  it.each([
    ['{"a":{"b":[0,{"c":1,"c":2}]}}', 'a.b.1.c'],
    ['[[],[1,1e999]]', '1.1'],
    ['{"a":1,"b":{"a":1},"a":2}', 'a'],
    ['-1e999', 'body'],
    ['"\\ud800"', 'body'],
    ['{"":1,"":2}', 'body'],
  ])('%s at %s', (text, field) => {
    expect(faultsOf(text).map((fault) => fault.field)).toEqual([field])
  })

  it('are not more than an answer holds, and take no time where there are many', () => {
    const text = `[${'1e999,'.repeat(150_000)}1]`
    expect(faultsOf(text)).toHaveLength(20)
    const startedAt = performance.now()
    expect(faultsOf(`{"a":"${'\\n'.repeat(500_000)}"}`)).toEqual([])
    expect(faultsOf(`[${'0,'.repeat(500_000)}0]`)).toEqual([])
    expect(performance.now() - startedAt).toBeLessThan(2000)
  })
})

it('a header of any length is read in no time', () => {
  const startedAt = performance.now()
  const spaces = ' '.repeat(16_000)
  for (const more of [';  '.repeat(5000), ';  a=b'.repeat(2500), `;${spaces}`, `;a="${'\\"'.repeat(7000)}`])
    expect(() => checkMediaType(`application/json${more}(`)).toThrow(/is none/)
  for (const text of [`a;${spaces}"`, `a=${spaces}!`]) expect(preferredWaitS(text)).toBeUndefined()
  for (const text of [
    `a${' '.repeat(16_000)}`,
    `a=${'"'.repeat(16_000)}`,
    `;${';a="'.repeat(4000)}`,
    ','.repeat(16_000),
    `a;${'a"b"'.repeat(4000)}!`,
  ])
    expect(preferredWaitS(text)).toBeUndefined()
  expect(isKnown(`${'"a",'.repeat(4000)}x`, '"b"')).toBe(false)
  expect(isKnown(`"a"${' ,'.repeat(8000)}x`, '"a"')).toBe(false)
  expect(rangeOf({ range: `bytes=${' ,'.repeat(8000)}x`, ifRange: undefined }, '"a"', 9)).toBeUndefined()
  expect(asksForStream(`${'text/event-stream;a '.repeat(800)};q=0`)).toBe(false)
  expect(performance.now() - startedAt).toBeLessThan(1000)
})

it.each([
  ['text/event-stream', true],
  ['application/json, Text/Event-Stream;q=0.1', true],
  ['text/event-stream;q=0', false],
  ['text/event-stream; q=0.000, application/json', false],
  ['text/event-stream;q=0.001', true],
  ['text/event-streams', false],
  ['*/*', false],
])('Accept: %s', (accept, is) => expect(asksForStream(accept)).toBe(is))
