import { describe, expect, it } from 'vitest'
import { describe as sentence, verdicts, type Run } from '../../bench/verdict.ts'

const runs = (target: string, values: readonly (number | undefined)[]): Run[] =>
  values.map((value) => (value === undefined ? [] : [{ name: 'a', value, unit: 'ms', target }]))
const compare = (target: string, base: readonly (number | undefined)[], head: readonly (number | undefined)[]) =>
  verdicts(runs(target, base), runs(target, head))[0]

describe('two commits beside one another', () => {
  it.each([
    ['at most', '<= 10', [1, 1, 1], [1.06, 1.06, 0.5], true],
    ['at most', '<= 10', [1, 1, 1], [1.04, 1.05, 9], false],
    ['at most', '<= 10', [1, 1, 1], [0.5, 0.5, 0.5], false],
    ['at least', '>= 10', [1, 1, 1], [0.94, 0.94, 2], true],
    ['at least', '>= 10', [1, 1, 1], [0.96, 0.96, 0.1], false],
    ['at least', '>= 10', [1, 1, 1], [2, 2, 2], false],
  ])('a figure that must be %s so much (%s): base %j, head %j, a loss: %s', (_, target, base, head, isLoss) => {
    expect(compare(target, base, head)).toMatchObject({ isLoss, better: target.startsWith('>=') ? 'higher' : 'lower' })
  })

  it('are compared in the rounds that have the figure of both', () => {
    const verdict = compare('<= 10', [1, undefined, 100, 4], [1, 50, undefined, 4])
    expect(verdict).toMatchObject({ ratio: 1, isLoss: false })
    expect(verdict?.pairs).toEqual([
      [1, 1],
      [4, 4],
    ])
  })

  it('prove nothing where one side has no figure: that is a loss', () => {
    const verdict = compare('<= 10', [1, 1], [undefined, undefined])
    expect(verdict).toMatchObject({ isLoss: true, pairs: [] })
    expect(verdict && sentence(verdict)).toMatch(/^✗ a +no round has it of both sides/)
  })

  it('are told with the direction and every pair', () => {
    const verdict = compare('>= 0.4', [0.5, 0.4], [0.5, 0.42])
    expect(verdict && sentence(verdict)).toMatch(/^✓ a +1\.02\d* +higher is better +0\.5→0\.5 0\.4→0\.42 ms$/)
  })
})
