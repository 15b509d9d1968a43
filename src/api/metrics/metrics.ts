/**
 * Metrics by the conventions of Prometheus: base units, `_total` for what only grows. What is told of the farm is the
 * same at each of its APIs; requests and what the runtime tells are the process' own.
 */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import { statuses } from '../../engine/session.ts'
import { recent } from '../../engine/recent.ts'
import { workerStatuses, type HeardWorker } from '../../farm/record.ts'
import type { EnginePort } from '../context.ts'

/** However often it is asked, the farm is read once in this time, ms. */
const readMs = 1000

type Farm = { counts: Awaited<ReturnType<EnginePort['counts']>>; workers: HeardWorker[] }

/** A figure of the farm: its value or its values by label, from one look. */
interface Figure {
  name: string
  help: string
  labels?: string[]
  kind?: typeof Gauge | typeof Counter
  of: (farm: Farm) => (readonly [labels: Record<string, string>, value: number | null])[]
}

const one = (value: number): (readonly [Record<string, string>, number])[] => [[{}, value]]
const deviceLabels = ['device', 'worker']

/** A figure of each device; one that the device does not tell is left out. */
const ofDevice = (name: string, help: string, value: (worker: HeardWorker) => number | null): Figure => ({
  name: `darkroom_device_${name}`,
  help,
  labels: deviceLabels,
  of: ({ workers }) => workers.map((worker) => [{ device: worker.device.id, worker: worker.id }, value(worker)] as const),
})

/** The same of what has only grown since the worker's start. */
const countedByWorker = (name: string, help: string, value: (worker: HeardWorker) => number): Figure => ({
  ...ofDevice('', help, value),
  name: `darkroom_${name}_total`,
  kind: Counter,
})

const percent = (value: number | null): number | null => (value === null ? null : value / 100)

const figures: Figure[] = [
  {
    name: 'darkroom_sessions',
    help: 'Sessions that are kept, by status.',
    labels: ['status'],
    of: ({ counts }) => statuses.map((status) => [{ status }, counts.sessions[status]] as const),
  },
  { name: 'darkroom_sessions_created_total', help: 'Sessions made.', kind: Counter, of: ({ counts }) => one(counts.totals.created) },
  {
    name: 'darkroom_sessions_ended_total',
    help: 'Sessions that have ended, by how.',
    labels: ['status'],
    kind: Counter,
    of: ({ counts: { totals } }) => (['succeeded', 'failed', 'cancelled'] as const).map((status) => [{ status }, totals[status]] as const),
  },
  {
    name: 'darkroom_steps_recovered_total',
    help: 'Steps whose lease ended without their attempt.',
    kind: Counter,
    of: ({ counts }) => one(counts.totals.recovered),
  },
  {
    name: 'darkroom_due_entries',
    help: 'Entries of the outbox, timers and leases, due now or later.',
    labels: ['list'],
    of: ({ counts }) => Object.entries(counts.due).map(([list, count]) => [{ list }, count] as const),
  },
  { name: 'darkroom_webhooks_waiting', help: 'Webhooks that are still to be told something.', of: ({ counts }) => one(counts.webhooks) },
  { name: 'darkroom_redis_memory_bytes', help: 'Memory that Redis uses.', of: ({ counts }) => one(counts.redis.used) },
  { name: 'darkroom_redis_memory_limit_bytes', help: 'maxmemory of Redis; 0 is no limit.', of: ({ counts }) => one(counts.redis.limit) },
  {
    name: 'darkroom_workers',
    help: 'Workers that live, by status.',
    labels: ['status'],
    of: ({ workers }) => workerStatuses.map((status) => [{ status }, workers.filter((worker) => worker.status === status).length] as const),
  },
  ofDevice('running_steps', 'Steps that run now.', ({ running }) => running.length),
  ofDevice('memory_bytes', 'Memory of the device.', ({ report }) => report.figures.total),
  ofDevice('memory_used_bytes', 'Memory of the device that is in use, by whomever.', ({ report }) => report.figures.used),
  ofDevice('utilization_ratio', 'Share of the time in which the device computed.', ({ report }) => percent(report.vitals.utilization)),
  ofDevice('temperature_celsius', 'Temperature of the device.', ({ report }) => report.vitals.temperature),
  ofDevice('power_watts', 'Power that the device draws.', ({ report }) => report.vitals.power),
  ofDevice('alerts', 'Alerts of the device.', ({ report }) => report.alerts.length),
  ofDevice('allocations', 'Allocations that live on the device.', ({ report }) => report.allocationCount),
  ofDevice('report_age_seconds', 'Time since its worker was heard last.', ({ ageMs }) => ageMs / 1000),
  ofDevice('model_cache_bytes', 'Model weights in the RAM of its worker.', ({ report }) => report.modelCache.bytes),
  countedByWorker('model_cache_hits', 'Loads whose weights were in RAM.', ({ report }) => report.modelCache.hits),
  countedByWorker('model_cache_misses', 'Loads whose weights were not in RAM.', ({ report }) => report.modelCache.misses),
]

export class Metrics {
  readonly #registry = new Registry()
  readonly #requests: Histogram<'method' | 'route' | 'status'>

  constructor(engine: Pick<EnginePort, 'counts' | 'workers'>) {
    const look = recent(readMs, async (): Promise<Farm> => {
      const [counts, workers] = await Promise.all([engine.counts(), engine.workers()])
      return { counts, workers }
    })
    const registers = [this.#registry]
    for (const { name, help, labels = [], kind: Kind = Gauge, of } of figures) {
      const metric: Gauge | Counter = new Kind({
        name,
        help,
        labelNames: labels,
        registers,
        collect: async () => {
          const farm = await look()
          metric.reset()
          for (const [values, value] of of(farm)) if (value !== null) metric.inc(values, value)
        },
      })
    }
    this.#requests = new Histogram({
      name: 'darkroom_http_request_duration_seconds',
      help: 'Time from a request to the head of its answer, by method, route and status.',
      labelNames: ['method', 'route', 'status'],
      buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60],
      registers,
    })
    collectDefaultMetrics({ register: this.#registry })
  }

  get contentType(): string {
    return this.#registry.contentType
  }

  /** `route`: its template, so that there are as many series as routes. */
  answered(method: string, route: string, status: number, ms: number): void {
    this.#requests.observe({ method, route, status: String(status) }, ms / 1000)
  }

  /** All of it in the text format of Prometheus. @throws DarkroomError `redis.unavailable` */
  text(): Promise<string> {
    return this.#registry.metrics()
  }
}
