/** What a worker on a CPU publishes of its device, for records that a test writes itself. */
import { noVitals } from '../../src/domains/device-memory.ts'
import type { DeviceReport } from '../../src/farm/record.ts'

const GiB = 2 ** 30

export const report = (more: Partial<DeviceReport> = {}): DeviceReport => ({
  backend: 'host',
  implementation: 'typescript',
  reason: null,
  key: 'host',
  uuid: null,
  luid: null,
  software: true,
  capabilities: {
    computeCapability: null,
    featureLevel: null,
    driver: null,
    pci: null,
    unified: true,
    dtypes: ['float32'],
    attention: ['none'],
    families: ['sd1'],
    limits: { cells: 16_384, cellSteps: 3_276_800 },
  },
  vitals: noVitals,
  state: 'online',
  alerts: [],
  sampledAt: 0,
  figures: { total: 16 * GiB, budget: null, used: 4 * GiB, usedIsOwn: false, source: 'node' },
  usage: {
    live: 0,
    tracked: 0,
    reserved: 0,
    pinned: 0,
    peak: 0,
    limit: null,
    created: 0,
    released: 0,
    expired: 0,
    arenas: 0,
    fragmentation: 0,
    largestHole: 0,
    lost: false,
  },
  ram: { total: 16 * GiB, available: 12 * GiB, used: 4 * GiB, rss: GiB, source: 'node' },
  python: { allocatedBytes: null, reservedBytes: null, models: [] },
  pressure: {
    device: { level: 'ok', fraction: 0.25, used: 4 * GiB, evictable: 0, total: 16 * GiB, since: 0, rung: null },
    ram: { level: 'ok', fraction: 0.25, used: 4 * GiB, evictable: 0, total: 16 * GiB, since: 0, rung: null },
  },
  allocations: [],
  allocationCount: 0,
  leaks: {
    count: 0,
    bytes: 0,
    byReason: { expired: { count: 0, bytes: 0 }, orphaned: { count: 0, bytes: 0 } },
    newest: [],
    suspects: [],
  },
  ...more,
})
