import { describe, expect, it } from 'vitest'
import { noVitals } from '../../../src/domains/device-memory.ts'
import { Alerts } from '../../../src/workers/device/alerts.ts'
import type { OwnDevice } from '../../../src/workers/device/open.ts'
import type { Sample } from '../../../src/workers/device/report.ts'
import { report } from '../../support/report.ts'

const { leaks, usage } = report()
const reached = { index: 0, reason: null } as OwnDevice
const sampleOf = (more: { temperature?: number; problem?: string; lost?: boolean } = {}): Sample =>
  ({
    problem: more.problem,
    usage: { ...usage, lost: more.lost ?? false },
    vitals: { ...noVitals, temperature: more.temperature ?? null },
  }) as Sample
const codes = (alerts: Alerts): string[] => alerts.list.map(({ code }) => code)

describe('alerts of a device', () => {
  it('stand from 90 °C until it is below 85 °C, and keep their time', () => {
    const alerts = new Alerts()
    const at = (temperature: number): string[] => {
      alerts.update(sampleOf({ temperature }), reached, leaks, [])
      return codes(alerts)
    }
    expect(at(89)).toEqual([])
    expect(at(90)).toEqual(['device.hot'])
    const [{ since } = { since: 0 }] = alerts.list
    expect(at(85)).toEqual(['device.hot'])
    expect(alerts.list).toMatchObject([{ since, message: expect.stringContaining('85 °C') as unknown }])
    expect(at(84)).toEqual([])
    expect(at(89)).toEqual([])
  })

  it('say that it is lost, not to be read, or pressed, and go with their reason', () => {
    const alerts = new Alerts()
    alerts.update(sampleOf({ problem: 'cannot be read', lost: true }), reached, leaks, ['ram'])
    expect(codes(alerts)).toEqual(['device.errors', 'device.lost', 'memory.pressure'])
    expect(alerts.isDegraded).toBe(true)
    alerts.update(sampleOf(), reached, leaks, [])
    expect([codes(alerts), alerts.isDegraded]).toEqual([[], false])
  })

  it('name a leak for ten minutes, of orphaned allocations alone', () => {
    const leak = { id: 'd.01234567.1', owner: 'key:local', bytes: 1, kind: 'device' as const, ageMs: 1, foundAt: Date.now() }
    const of = (reason: 'expired' | 'orphaned', foundAt: number): string[] => {
      const alerts = new Alerts()
      alerts.update(sampleOf(), reached, { ...leaks, newest: [{ ...leak, reason, foundAt }] }, [])
      return codes(alerts)
    }
    expect(of('orphaned', Date.now())).toEqual(['memory.leak'])
    expect(of('expired', Date.now())).toEqual([])
    expect(of('orphaned', Date.now() - 601_000)).toEqual([])
  })

  it('do not call a device degraded that the addon does not reach: its worker draws all the same', () => {
    const alerts = new Alerts()
    alerts.update(sampleOf(), { index: null, reason: 'not built' } as OwnDevice, leaks, [])
    expect([alerts.list.map(({ message }) => message), alerts.isDegraded]).toEqual([['not built'], false])
  })
})
