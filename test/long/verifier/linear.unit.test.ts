/** The check of histories by itself: what is in order passes, each broken promise is found. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { linearize, sessionModel, type Answer, type Asked, type Operation } from './linear.ts'

type Line = [calledAt: number, answeredAt: number, asked: Asked, answer?: Answer]
const history = (...lines: Line[]): Operation<Asked, Answer>[] =>
  lines.map(([calledAt, answeredAt, asked, answer]) => ({ calledAt, answeredAt: answer ? answeredAt : Infinity, asked, answer }))
const isLinear = (...lines: Line[]): boolean => linearize(history(...lines), sessionModel(2)).is === 'linear'

const submitted: Line = [0, 1, { do: 'submit' }, { code: 202 }]
const said = (from: number, to: number, word: string, code = 200): Line => [from, to, { do: 'signal', word }, { code }]
const seen = (from: number, to: number, status: string, ...words: string[]): Line => [
  from,
  to,
  { do: 'get' },
  { code: 200, status, ...(words.length > 0 && { said: words }) },
]
const asks = (from: number, to: number, verb: 'pause' | 'resume' | 'cancel', code = 200): Line => [from, to, { do: verb }, { code }]

describe('a history of one session', () => {
  it('is in order as it came, and when what overlaps came the other way round', () => {
    expect(isLinear(submitted, said(2, 3, 'a'), said(4, 5, 'b'), seen(6, 7, 'succeeded', 'a', 'b'))).toBe(true)
    expect(isLinear(submitted, said(2, 5, 'a'), said(3, 4, 'b'), seen(6, 7, 'succeeded', 'b', 'a'))).toBe(true)
    expect(isLinear(submitted, [0, 2, { do: 'submit' }, { code: 200 }])).toBe(true)
  })

  it('takes what nobody heard of for done or not', () => {
    const unheard: Line = [2, 0, { do: 'signal', word: 'a' }]
    expect(isLinear(submitted, unheard, said(3, 4, 'b'), said(5, 6, 'c'), seen(7, 8, 'succeeded', 'a', 'b'))).toBe(true)
    expect(isLinear(submitted, unheard, said(3, 4, 'b'), said(5, 6, 'c'), seen(7, 8, 'succeeded', 'b', 'c'))).toBe(true)
    expect(isLinear([0, 0, { do: 'submit' }], [1, 2, { do: 'submit' }, { code: 200 }])).toBe(true)
    expect(isLinear([0, 0, { do: 'submit' }], [1, 2, { do: 'submit' }, { code: 202 }])).toBe(true)
  })

  it.each<[string, Line[]]>([
    ['a signal that was taken and is lost', [said(2, 3, 'a'), said(4, 5, 'b'), said(6, 7, 'c'), seen(8, 9, 'succeeded', 'a', 'c')]],
    ['signals in another order than they were taken in', [said(2, 3, 'a'), said(4, 5, 'b'), seen(6, 7, 'succeeded', 'b', 'a')]],
    ['a signal that counts twice', [said(2, 3, 'a'), said(4, 5, 'a'), seen(6, 7, 'succeeded', 'a', 'a')]],
    ['a signal that is taken after the end', [asks(2, 3, 'cancel'), said(4, 5, 'a')]],
    ['a refusal before the end', [said(2, 3, 'a', 409), seen(4, 5, 'running')]],
    ['a pause that does not hold', [asks(2, 3, 'pause'), seen(4, 5, 'running')]],
    ['an end while it is paused', [asks(2, 3, 'pause'), said(4, 5, 'a'), said(6, 7, 'b'), seen(8, 9, 'succeeded', 'a', 'b')]],
    ['an end that is taken back', [said(2, 3, 'a'), said(4, 5, 'b'), seen(6, 7, 'succeeded', 'a', 'b'), seen(8, 9, 'running')]],
    ['two cancels that both count', [asks(2, 3, 'cancel'), asks(4, 5, 'cancel')]],
    ['one key that makes two sessions', [[0, 2, { do: 'submit' }, { code: 202 }]]],
    ['an accepted session that is lost', [[2, 3, { do: 'submit' }, { code: 202 }]]],
  ])('finds %s', (_, lines) => {
    expect(isLinear(submitted, ...lines)).toBe(false)
  })

  it('of any order that really happened is in order', () => {
    const asked = fc.oneof(
      fc.constantFrom<Asked>({ do: 'pause' }, { do: 'resume' }, { do: 'get' }, { do: 'cancel' }),
      fc.constantFrom('a', 'b', 'c', 'd').map((word): Asked => ({ do: 'signal', word })),
    )
    const each = fc.record({ asked, at: fc.nat(100), before: fc.nat(20), after: fc.nat(20), isHeard: fc.boolean(), ends: fc.boolean() })
    fc.assert(
      fc.property(fc.array(each, { maxLength: 12 }), (list) => {
        // A session that is really there, to which they happen at `at`.
        let is = 'running'
        const heard: string[] = []
        const lines = list
          .toSorted((a, b) => a.at - b.at)
          .map(({ asked: what, at, before, after, isHeard, ends }): Line => {
            if (ends && is === 'running' && heard.length >= 2) is = 'succeeded'
            const isOpen = is === 'running' || is === 'paused'
            const answer: Answer =
              what.do === 'get'
                ? { code: 200, status: is, ...(is === 'succeeded' && { said: heard.slice(0, 2) }) }
                : { code: isOpen || (what.do === 'signal' && heard.includes(what.word)) ? 200 : 409 }
            if (isOpen && what.do === 'signal' && !heard.includes(what.word)) heard.push(what.word)
            if (isOpen && what.do === 'pause') is = 'paused'
            if (isOpen && what.do === 'resume') is = 'running'
            if (isOpen && what.do === 'cancel') is = 'cancelled'
            return [100 + at - before, 100 + at + after, what, ...(isHeard ? [answer] : [])] as Line
          })
        expect(isLinear(submitted, ...lines)).toBe(true)
      }),
      { numRuns: 300 },
    )
  })
})
