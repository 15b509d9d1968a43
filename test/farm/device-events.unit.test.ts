import { describe, expect, it } from 'vitest'
import { changesOf, knownOf, type Change, type Known } from '../../src/farm/device-events.ts'
import { report } from '../support/report.ts'

const known = (more: Partial<Known> = {}): Known => ({ worker: 'w', epoch: 'e', state: 'online', alerts: [], ...more })
const told = (changes: Change[]): string[] =>
  changes.map(({ type, from, alert }) => [type, from ?? 'nowhere', alert?.code].filter(Boolean).join(' '))

describe('what has changed of a device', () => {
  it.each<[string, Known | undefined, Known | undefined, string[]]>([
    ['nothing', known(), known(), []],
    ['it came', undefined, known(), ['device.online nowhere']],
    [
      'it came with an alert',
      undefined,
      known({ state: 'degraded', alerts: ['device.hot'] }),
      ['device.degraded nowhere', 'alert.raised nowhere device.hot'],
    ],
    ['it works', known(), known({ state: 'busy' }), ['device.busy online']],
    [
      'one alert for another',
      known({ state: 'degraded', alerts: ['device.hot'] }),
      known({ state: 'degraded', alerts: ['memory.leak'] }),
      ['alert.raised degraded memory.leak', 'alert.cleared degraded device.hot'],
    ],
    [
      'it went, and its alerts with it',
      known({ alerts: ['memory.leak'] }),
      undefined,
      ['alert.cleared online memory.leak', 'device.offline online'],
    ],
    [
      'it went and came back between two looks',
      known({ state: 'busy' }),
      known({ epoch: 'f' }),
      ['device.offline busy', 'device.online nowhere'],
    ],
    ['it was never here', undefined, undefined, []],
  ])('%s', (_, before, after, expected) => expect(told(changesOf('d', before, after))).toEqual(expected))

  it('says what an alert says, and who has gone', () => {
    const [, raised] = changesOf('d', undefined, known({ alerts: ['device.hot'] }), new Map([['device.hot', '91 °C']]))
    expect(raised?.alert).toEqual({ code: 'device.hot', message: '91 °C' })
    expect(changesOf('d', known(), undefined)[0]?.note).toMatch(/worker w has gone/)
  })
})

describe('what is known of a device', () => {
  it('does not change with the words of an alert or their order, and counts a worker that takes nothing as degraded', () => {
    const alerts = [
      { code: 'memory.leak' as const, message: '2', since: 1 },
      { code: 'device.hot' as const, message: '91 °C', since: 2 },
    ]
    const worker = { id: 'w', epoch: 'e', status: 'ready' as const, report: report({ alerts }) }
    const later = { ...worker, report: report({ alerts: alerts.map((alert) => ({ ...alert, message: '3' })).toReversed() }) }
    expect(JSON.stringify(knownOf(later))).toBe(JSON.stringify(knownOf(worker)))
    expect(knownOf({ ...worker, status: 'suspect' }).state).toBe('degraded')
    expect(knownOf({ ...worker, status: 'stalled' }).state).toBe('degraded')
  })
})
