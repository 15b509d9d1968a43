import { describe, expect, it } from 'vitest'
import { checkRule, nextInstant, nextInstants } from '../../src/engine/schedule-rule.ts'

const at = (text: string): number => Date.parse(text)
const next = (cron: string, timezone: string, after: string, most: number): string[] =>
  nextInstants({ cron, timezone }, at(after), most).map((ms) => new Date(ms).toISOString().slice(5, 16))

describe('a pattern in a time zone whose clocks change', () => {
  it('falls due once on the day on which its local time is left out, at the moment of the change', () => {
    expect(next('30 2 * * *', 'Europe/Berlin', '2026-03-28T00:00Z', 3)).toEqual(['03-28T01:30', '03-29T01:00', '03-30T00:30'])
  })

  it('falls due once on the day on which its local time comes twice, the first time', () => {
    expect(next('30 2 * * *', 'Europe/Berlin', '2026-10-24T00:00Z', 3)).toEqual(['10-24T00:30', '10-25T00:30', '10-26T01:30'])
  })

  it('of intervals goes on by real time', () => {
    const halfHours = ['10-25T00:00', '10-25T00:30', '10-25T01:00', '10-25T01:30', '10-25T02:00']
    expect(next('*/30 * * * *', 'Europe/Berlin', '2026-10-24T23:45Z', 5)).toEqual(halfHours)
    expect(next('*/30 * * * *', 'Europe/Berlin', '2026-03-29T00:15Z', 3)).toEqual(['03-29T00:30', '03-29T01:00', '03-29T01:30'])
  })

  it('keeps its local time over the change, where the change is not in it', () => {
    expect(next('0 9 * * *', 'America/New_York', '2026-03-07T00:00Z', 2)).toEqual(['03-07T14:00', '03-08T13:00'])
  })
})

describe('every so many seconds', () => {
  const rule = { everyS: 90, from: at('2026-01-01T00:00:10Z') }

  it('counts from its start, wherever one asks', () => {
    expect(nextInstant(rule, rule.from)).toBe(rule.from + 90_000)
    expect(nextInstant(rule, rule.from + 89_999)).toBe(rule.from + 90_000)
    expect(nextInstant(rule, rule.from + 90_000)).toBe(rule.from + 180_000)
    expect(nextInstant(rule, rule.from - 1_000_000)).toBe(rule.from + 90_000)
  })
})

describe('a bad rule is refused by its field', () => {
  it.each([
    ['* * *', 'UTC', 'cron'],
    ['61 * * * *', 'UTC', 'cron'],
    ['* * * * * *', 'UTC', 'cron'],
    ['0 0 30 2 *', 'UTC', 'cron'],
    ['nightly', 'UTC', 'cron'],
    ['0 0 * * *', 'Mars/Olympus', 'timezone'],
  ])('%s in %s: %s', (cron, timezone, field) => {
    expect(() => checkRule({ cron, timezone }, at('2026-01-01'))).toThrow(expect.objectContaining({ code: 'api.invalid', field }) as Error)
  })
})
