import { describe, expect, it } from 'vitest'
import type { DarkroomError } from '../../../src/errors.ts'
import { readConfig } from '../../../src/config.ts'
import { createLog } from '../../../src/log.ts'
import { HostMemory } from '../../../src/workers/device/host-memory.ts'
import { DeviceMonitor, type MonitorOptions } from '../../../src/workers/device/monitor.ts'
import type { Ready } from '../../../src/workers/python/protocol.ts'
import type { PythonChild } from '../../../src/workers/python/supervisor.ts'

/** System RAM whose driver can lose it. */
class LosableMemory extends HostMemory {
  isLost = false
  override usage(device: number): ReturnType<HostMemory['usage']> {
    return { ...super.usage(device), lost: this.isLost }
  }
}

describe('a device that its driver has lost', () => {
  it('ends its worker, for only a new process can use it again, and says so in its report', async () => {
    const memory = new LosableMemory()
    const reasons: DarkroomError[] = []
    const options: MonitorOptions = {
      target: { device: 'd', worker: 'w', epoch: '01234567-0000' },
      ready: {
        hardware: { totalBytes: null, capability: null, driver: null },
        settings: { dtype: 'float32', attention: 'none' },
        fast: { why: null, uncached: null },
      } as Ready,
      child: {} as PythonChild,
      families: () => [],
      cacheBytes: 0,
      limits: { cells: 1, cellSteps: 1 },
      sessions: { endedOf: () => Promise.resolve(new Map()), keyOf: () => Promise.resolve(null) },
      keyLimits: readConfig({}).limits,
      log: createLog('silent', 'test'),
      isBusy: () => false,
      reserve: () => Promise.reject(new Error('nothing is reserved here')),
      promises: {
        keyQuota: 0,
        reserved: () => 0,
        bookRam: () => Promise.resolve({ isBooked: true, others: 0 }),
        bookKey: () => Promise.resolve({ isBooked: true, others: 0 }),
      },
      publish: () => Promise.resolve(),
      publishAnalytics: () => Promise.resolve(),
      fail: (reason) => reasons.push(reason),
    }
    const [device] = memory.devices()
    if (!device) throw new Error('there is no system RAM')
    const monitor = new DeviceMonitor({ memory, index: 0, device, reason: null }, options)
    await monitor.tools.publish()
    expect([reasons, monitor.report.alerts.filter(({ code }) => code === 'device.lost')]).toEqual([[], []])
    memory.isLost = true
    await monitor.tools.publish()
    expect(reasons).toMatchObject([{ code: 'device.lost' }])
    expect(monitor.report).toMatchObject({ state: 'degraded', usage: { lost: true } })
    expect(monitor.report.alerts).toContainEqual(expect.objectContaining({ code: 'device.lost' }))
    await monitor.close()
  })
})
