/** What a worker on a CPU publishes of its device, for records that a test writes itself. */
import { noVitals } from '../../src/domains/device-memory.ts'
import type { DeviceReport, WorkerRecord } from '../../src/farm/record.ts'

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

/** A ready worker on a CPU that publishes such a report, and does nothing. */
export const workerRecord = (more: Partial<WorkerRecord> = {}): WorkerRecord => ({
  id: 'w-1',
  host: 'here',
  pid: 1,
  epoch: 'e1',
  device: { id: '0123abcd-cpu-0', kind: 'cpu', name: 'a CPU', index: 0, totalBytes: null },
  exactnessKey: '01234567',
  hardware: { kind: 'cpu' },
  build: { torch: '2' },
  settings: { dtype: 'float32' },
  status: 'ready',
  models: [],
  resident: [],
  running: [{ key: '0-x.1.0', step: 'inference.denoise', session: '0-x', since: Date.now() }],
  lanes: { gpu: 1, host: 4 },
  childPid: null,
  report: report(),
  startedAt: Date.now(),
  seenAt: Date.now(),
  ...more,
})
