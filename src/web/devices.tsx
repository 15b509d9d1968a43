/** The devices: what each does now, and how it was in the last minutes. */
import { signal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { DeviceEvent, DeviceEventPage, LiveDevice, MemoryPool } from '../client/types.ts'
import { get, quietly } from './api.ts'
import { Chart } from './chart.tsx'
import { devices } from './live.ts'
import { linkTo } from './route.ts'
import { atTime, inBytes, inTime, secondsBetween } from './words.ts'

const pools = signal<readonly MemoryPool[]>([])
const events = signal<readonly DeviceEvent[]>([])

interface Sample {
  at: number
  used: number | null
  busy: number | null
}
/** Since the page was opened, by device. */
const samples = new Map<string, Sample[]>()
const mostSamples = 600
const lookMs = 2000

devices.subscribe((all) => {
  for (const { id, usedBytes, vitals, sampledAt } of all) {
    const known = samples.get(id) ?? []
    const at = Date.parse(sampledAt)
    if (known.at(-1)?.at !== at)
      samples.set(id, [...known.slice(1 - mostSamples), { at, used: usedBytes, busy: vitals.utilization ?? null }])
  }
})

export function Devices() {
  useEffect(() => {
    const look = async (): Promise<void> => {
      const [memory, page] = await Promise.all([get<{ pools: MemoryPool[] }>('/memory'), get<DeviceEventPage>('/devices/events?limit=50')])
      pools.value = memory.pools
      events.value = page.events.toReversed()
    }
    const again = (): void => quietly(look())
    again()
    const timer = setInterval(again, lookMs)
    return () => clearInterval(timer)
  }, [])
  return (
    <section class="devices room" aria-labelledby="devices-name">
      <h1 id="devices-name">Devices</h1>
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
    </section>
  )
}

const figure = (value: number | null, unit: string): string | null => (value === null ? null : `${Math.round(value)} ${unit}`)

function DevicePanel({ device }: { device: LiveDevice }) {
  const { id, name, model, state, host, totalBytes, usedBytes, vitals, running, alerts } = device
  const past = samples.get(id) ?? []
  return (
    <article class="panel" aria-labelledby={`device-${id}`}>
      <header>
        <h2 id={`device-${id}`}>{name}</h2>
        <span class="state">
          <i class={`dot ${state}`} aria-hidden="true" />
          {state}
        </span>
      </header>
      <p class="hint">
        {model} · {host}
      </p>
      {usedBytes !== null && totalBytes !== null && (
        <Chart
          title={`Memory of ${name}: ${inBytes(usedBytes)} of ${inBytes(totalBytes)}`}
          points={past.flatMap(({ at, used }) => (used === null ? [] : [[at, used / totalBytes] as const]))}
        />
      )}
      <dl class="figures">
        <Figure
          name="memory"
          value={usedBytes === null ? '–' : `${inBytes(usedBytes)}${totalBytes === null ? '' : ` / ${inBytes(totalBytes)}`}`}
        />
        <Figure name="busy" value={figure(vitals.utilization, '%')} />
        <Figure name="temperature" value={figure(vitals.temperature, '°C')} />
        <Figure name="power" value={figure(vitals.power, 'W')} />
      </dl>
      {alerts.map((alert) => (
        <p key={alert.code} class="fault" role="alert">
          {alert.message}
        </p>
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
    </article>
  )
}

/** What nobody knows is not shown. */
function Figure({ name, value }: { name: string; value: string | null }) {
  if (value === null) return null
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  )
}

function Pools() {
  return (
    <table class="plain-table">
      <caption>Memory by pool</caption>
      <thead>
        <tr>
          <th scope="col">Pool</th>
          <th scope="col">Used</th>
          <th scope="col">Evictable</th>
          <th scope="col">Total</th>
          <th scope="col">Pressure</th>
        </tr>
      </thead>
      <tbody>
        {pools.value.map((pool) => (
          <tr key={`${pool.pool} ${pool.device ?? pool.host}`}>
            <th scope="row">{pool.pool === 'ram' ? `RAM of ${pool.host}` : pool.name}</th>
            <td>{bytesOr(pool.used)}</td>
            <td>{inBytes(pool.evictable)}</td>
            <td>{bytesOr(pool.total)}</td>
            <td>{pool.pressure.level}</td>
          </tr>
        ))}
      </tbody>
    </table>
  )
}

const bytesOr = (bytes: number | null): string => (bytes === null ? '–' : inBytes(bytes))
