/** The devices: what each does now, and how it was over the last day. */
import { signal } from './signals.ts'
import type { Allocation, DeviceEvent, DeviceEventPage, DeviceHistory, LiveDevice, MemoryPool, ResidentModels } from '../client/types.ts'
import { get } from './api.ts'
import { Chart, type Point } from './chart.tsx'
import { devices } from './live.ts'
import { Choices, Dot, Fault, Table } from './parts.tsx'
import { Room, useLook } from './room.tsx'
import { linkTo } from './route.ts'
import { atTime, inBytes, inTime, secondsBetween } from './words.ts'

const pools = signal<readonly MemoryPool[]>([])
const events = signal<readonly DeviceEvent[]>([])
const residents = signal<readonly ResidentModels[]>([])
const allocations = signal<readonly Allocation[]>([])
type Sample = DeviceHistory['samples'][number]
/** Of the last day, by device. */
const histories = signal<Readonly<Record<string, readonly Sample[]>>>({})

const lookMs = 2000
const historyMs = 60_000
const spans = { '1 h': 3_600_000, '6 h': 21_600_000, '24 h': 86_400_000 } as const
const span = signal<keyof typeof spans>('1 h')

export function Devices() {
  const known = devices.value.map(({ id }) => id).join(' ')
  useLook(async () => {
    const [memory, page, models, held] = await Promise.all([
      get<{ pools: MemoryPool[] }>('/memory'),
      get<DeviceEventPage>('/devices/events?limit=50'),
      get<{ devices: ResidentModels[] }>('/memory/models'),
      get<{ allocations: Allocation[] }>('/memory/allocations'),
    ])
    residents.value = models.devices
    allocations.value = held.allocations
    pools.value = memory.pools
    events.value = page.events.toReversed()
  }, lookMs)
  useLook(
    async () => {
      const told = await Promise.all(
        known.split(' ').map(async (id) => id !== '' && get<DeviceHistory>(`/devices/${encodeURIComponent(id)}/history`)),
      )
      histories.value = Object.fromEntries(told.flatMap((history) => (history ? [[history.device, history.samples]] : [])))
    },
    historyMs,
    known,
  )
  return (
    <Room name="devices" title="Devices" bar={<Choices label="History" of={Object.keys(spans) as (keyof typeof spans)[]} chosen={span} />}>
      {devices.value.length === 0 && <p class="empty">No worker is here. Sessions wait until one comes.</p>}
      <div class="panels">
        {devices.value.map((device) => (
          <DevicePanel key={device.id} device={device} />
        ))}
      </div>
      {pools.value.length > 0 && <Pools />}
      {events.value.length > 0 && (
        <details class="events">
          <summary>Changes</summary>
          <ol>
            {events.value.map((event) => (
              <li key={event.id}>
                <time dateTime={event.at}>{atTime(event.at)}</time> <b>{event.type}</b> {event.device}{' '}
                {event.alert?.message ?? event.note ?? ''}
              </li>
            ))}
          </ol>
        </details>
      )}
    </Room>
  )
}

interface Measure {
  name: string
  now: number | null
  words: (value: number) => string
  past: (sample: Sample) => number | null
  most: number
  levels?: readonly number[]
}

function DevicePanel({ device }: { device: LiveDevice }) {
  const { id, name, model, state, host, totalBytes, usedBytes, vitals, running, alerts, sampledAt } = device
  const ram = pools.value.find((pool) => pool.pool === 'ram' && pool.host === host)
  const past = histories.value[id] ?? []
  const memory = (total: number | null | undefined) => ({
    most: total || 1,
    words: (bytes: number): string => `${inBytes(bytes)}${total ? ` of ${inBytes(total)}` : ''}`,
    levels: [0.8, 0.9, 0.95].map((level) => level * (total || 1)),
  })
  const rounded = (unit: string) => (value: number) => `${Math.round(value)} ${unit}`
  const highest = (at: (sample: Sample) => number | null, least: number): number =>
    Math.max(least, ...past.map((sample) => at(sample) ?? 0)) * 1.1
  const measures: Measure[] = [
    { name: 'memory', now: usedBytes, past: (sample) => sample.usedBytes, ...memory(totalBytes) },
    // The memory of a CPU is that.
    ...(name.startsWith('cpu')
      ? []
      : [{ name: 'RAM', now: ram?.used ?? null, past: (sample: Sample) => sample.ramUsedBytes, ...memory(ram?.total) }]),
    { name: 'busy', now: vitals.utilization, past: (sample) => sample.utilization, words: rounded('%'), most: 100 },
    { name: 'temperature', now: vitals.temperature, past: (sample) => sample.temperature, words: rounded('°C'), most: 100 },
    {
      name: 'power',
      now: vitals.power,
      past: (sample) => sample.power,
      words: rounded('W'),
      most: vitals.powerLimit ?? highest((sample) => sample.power, vitals.power ?? 1),
    },
  ]
  const now = Date.parse(sampledAt)
  return (
    <article class="panel" aria-labelledby={`device-${id}`}>
      <header>
        <h2 id={`device-${id}`}>{name}</h2>
        <span class="state">
          <Dot of={state} />
          {state}
        </span>
      </header>
      <p class="hint">
        {model} · {host}
      </p>
      <dl class="measures">
        {measures.map((measure) => (
          <Shown key={measure.name} measure={measure} past={past} now={now} />
        ))}
      </dl>
      {alerts.map((alert) => (
        <Fault key={alert.code}>{alert.message}</Fault>
      ))}
      <ul class="runs">
        {running.map(({ key, step, session, since }) => (
          <li key={key ?? step}>
            {session === null ? step : <a href={linkTo('session', session)}>{step}</a>}{' '}
            <small>for {inTime(Math.max(0, secondsBetween(since, null)))}</small>
          </li>
        ))}
        {running.length === 0 && <li class="hint">nothing runs</li>}
      </ul>
      <Holds device={id} />
    </article>
  )
}

/** Models that are resident, weights that are in the RAM of its worker, and what is allocated of it, by whom. */
function Holds({ device }: { device: string }) {
  const known = residents.value.find((each) => each.device === device)
  const own = allocations.value.filter((each) => each.device === device)
  const cached = known?.cache?.bytes ?? 0
  if (!known || known.models.length + own.length + cached === 0) return null
  return (
    <ul class="runs" aria-label="What it holds">
      {known.models.map(({ id, bytes, isIdle }) => (
        <li key={id}>
          {id} <small>{[bytes !== null && inBytes(bytes), isIdle ? 'resident' : 'in use'].filter(Boolean).join(', ')}</small>
        </li>
      ))}
      {cached > 0 && (
        <li>
          <small>{inBytes(cached)} of weights cached in RAM</small>
        </li>
      )}
      {own.map(({ id, owner, bytes }) => (
        <li key={id}>
          {owner.startsWith('key:') ? owner : <a href={linkTo('session', owner)}>a session</a>} <small>holds {inBytes(bytes)}</small>
        </li>
      ))}
    </ul>
  )
}

/** What nobody knows, now or in all of the day, is not shown. */
function Shown({
  measure: { name, now, words, past: at, most, levels },
  past,
  now: nowAt,
}: {
  measure: Measure
  past: readonly Sample[]
  now: number
}) {
  const points: Point[] = past.flatMap((sample) => {
    const value = at(sample)
    return value === null ? [] : [[Date.parse(sample.at), value] as const]
  })
  if (now === null && points.length === 0) return null
  const latest = now === null ? points : [...points, [nowAt, now] as const]
  const values = latest.map(([, value]) => value)
  const title = `${name} over the last ${span.value}: ${words(Math.min(...values))} to ${words(Math.max(...values))}`
  return (
    <div>
      <dt>{name}</dt>
      <dd>{now === null ? '–' : words(now)}</dd>
      <dd class="drawn">
        <Chart title={title} points={latest} most={most} spanMs={spans[span.value]} levels={levels ?? []} />
      </dd>
    </div>
  )
}

const Pools = () => (
  <Table
    caption="Memory by pool"
    heads={['Pool', 'Used', 'Evictable', 'Total', 'Pressure']}
    rows={Object.fromEntries(
      pools.value.map(({ pool, device, host, name, used, evictable, total, pressure }) => [
        `${pool} ${device ?? host}`,
        [pool === 'ram' ? `RAM of ${host}` : name, bytesOr(used), inBytes(evictable), bytesOr(total), pressure.level],
      ]),
    )}
  />
)

const bytesOr = (bytes: number | null): string => (bytes === null ? '–' : inBytes(bytes))
