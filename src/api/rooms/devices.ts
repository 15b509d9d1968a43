/** The devices: what each does now, and how it was over the last day. */
import type { DeviceSample } from '../../farm/history.ts'
import type { HeardWorker } from '../../farm/record.ts'
import { sizeText } from '../../models/header.ts'
import { presentEvent, presentStatus, shortName } from '../devices/views.ts'
import { presentPools } from '../memory/views.ts'
import { visibleAllocations } from '../policy.ts'
import type { At } from './at.ts'
import { chart, type Point } from './chart.ts'
import { div, dot, el, hint, link, linkTo, ol, p, room, small, span, table, time, ul, type Element } from './markup.ts'

const spans = { '1 h': 3_600_000, '6 h': 21_600_000, '24 h': 86_400_000 } as const
type Span = keyof typeof spans
const shownEvents = 50

/** A sample comes once a minute, and somebody who looks asks again much sooner. */
const keptMs = 20_000
const kept = new WeakMap<object, Map<string, { until: number; samples: Promise<DeviceSample[]> }>>()

function pastOf({ devices: farm }: At['engine'], id: string): Promise<DeviceSample[]> {
  const all = kept.get(farm) ?? new Map<string, { until: number; samples: Promise<DeviceSample[]> }>()
  kept.set(farm, all)
  const known = all.get(id)
  if (known && known.until > performance.now()) return known.samples
  const samples = farm.history(id)
  all.set(id, { until: performance.now() + keptMs, samples })
  samples.catch(() => all.delete(id))
  return samples
}

export async function devices({ engine, caller, show }: At): Promise<Element> {
  const workers = (await engine.workers()).toSorted((a, b) => (a.device.id < b.device.id ? -1 : 1))
  const [events, panels] = await Promise.all([
    engine.devices.watch.events(undefined, shownEvents),
    Promise.all(
      workers.map(async (worker) => {
        const [past, held] = await Promise.all([pastOf(engine, worker.device.id), visibleAllocations([worker], caller, engine)])
        const status = presentStatus(worker, caller)
        return panel(worker, status, [...measures(worker, status, past, (show in spans ? show : '1 h') as Span)], holds(worker, held))
      }),
    ),
  ])
  return room(
    'devices',
    'Devices',
    el('Choices', { label: 'History', of: Object.keys(spans) }),
    workers.length === 0 && p('empty', 'No worker is here. Sessions wait until one comes.'),
    div('panels', panels),
    workers.length > 0 && pools(workers),
    events.length > 0 &&
      el(
        'details',
        { class: 'events' },
        el('summary', {}, 'Changes'),
        ol(
          '',
          events
            .map(presentEvent)
            .toReversed()
            .map(({ id, at, type, device, alert, note }) =>
              el('li', { key: id }, time(at), ' ', el('b', {}, type), ` ${device} ${alert?.message ?? note ?? ''}`),
            ),
        ),
      ),
  )
}

type Status = ReturnType<typeof presentStatus>

function panel({ device, host }: HeardWorker, { state, alerts, running }: Status, drawn: Element[], held: Element | false): Element {
  return el(
    'article',
    { key: device.id, class: 'panel', 'aria-labelledby': `device-${device.id}` },
    el('header', {}, el('h2', { id: `device-${device.id}` }, shortName({ device })), span('state', dot(state), state)),
    hint(`${device.name} · ${host}`),
    el('dl', { class: 'measures' }, drawn),
    alerts.map(({ code, message }) => el('p', { key: code, class: 'fault', role: 'alert' }, message)),
    ul(
      'runs',
      running.map(({ key, step, session, since }) =>
        el(
          'li',
          { key: key ?? step },
          session === null ? step : link(linkTo('session', session), step),
          ' ',
          small('for ', el('Span', { since })),
        ),
      ),
      running.length === 0 && el('li', { class: 'hint' }, 'nothing runs'),
    ),
    held,
  )
}

/** What is measured of a device. What nobody knows, now or in all of the day, is not shown. */
function measures(
  worker: HeardWorker,
  { vitals, usedBytes, totalBytes, sampledAt }: Status,
  past: readonly DeviceSample[],
  span: Span,
): Element[] {
  const { ram } = worker.report
  const now = Date.parse(sampledAt)
  const inWords = (total: number | null) => (bytes: number) => `${sizeText(bytes)}${total ? ` of ${sizeText(total)}` : ''}`
  const rounded = (unit: string) => (value: number) => `${Math.round(value)} ${unit}`
  const levels = (total: number | null): number[] => [0.8, 0.9, 0.95].map((level) => level * (total || 1))
  const highest = Math.max(vitals.power ?? 1, ...past.map(({ power }) => power ?? 0)) * 1.1
  const one = (
    name: string,
    value: number | null,
    at: (sample: DeviceSample) => number | null,
    words: (value: number) => string,
    most: number,
    lines?: number[],
  ): Element[] => {
    const points = past.flatMap((sample): Point[] => {
      const then = at(sample)
      return then === null ? [] : [[sample.at, then]]
    })
    if (value !== null) points.push([now, value])
    if (points.length === 0) return []
    const values = points.map(([, then]) => then)
    const title = `${name} over the last ${span}: ${words(Math.min(...values))} to ${words(Math.max(...values))}`
    const drawn = chart({ title, points, most, spanMs: spans[span], levels: lines ?? [] })
    return [
      el('div', { key: name }, el('dt', {}, name), el('dd', {}, value === null ? '–' : words(value)), el('dd', { class: 'drawn' }, drawn)),
    ]
  }
  return [
    ...one('memory', usedBytes, (sample) => sample.usedBytes, inWords(totalBytes), totalBytes || 1, levels(totalBytes)),
    // The memory of a CPU is that.
    ...(worker.device.kind === 'cpu'
      ? []
      : one('RAM', ram.used, (sample) => sample.ramUsedBytes, inWords(ram.total), ram.total || 1, levels(ram.total))),
    ...one('busy', vitals.utilization, (sample) => sample.utilization, rounded('%'), 100),
    ...one('temperature', vitals.temperature, (sample) => sample.temperature, rounded('°C'), 100),
    ...one('power', vitals.power, (sample) => sample.power, rounded('W'), vitals.powerLimit ?? highest),
  ]
}

/** Models that are resident, weights that are in the RAM of its worker, and what is allocated of it, by whom. */
function holds({ report: { python, modelCache } }: HeardWorker, own: Awaited<ReturnType<typeof visibleAllocations>>): Element | false {
  const models = python?.models ?? []
  // A worker of an earlier version has none.
  const cached = (modelCache as typeof modelCache | undefined)?.bytes ?? 0
  return (
    models.length + own.length + cached > 0 &&
    el(
      'ul',
      { class: 'runs', 'aria-label': 'What it holds' },
      models.map(({ id, bytes, isIdle }) =>
        el('li', { key: id }, `${id} `, small(bytes !== null && `${sizeText(bytes)}, `, isIdle ? 'resident' : 'in use')),
      ),
      cached > 0 && el('li', {}, small(`${sizeText(cached)} of weights cached in RAM`)),
      own.map(({ id, owner, bytes }) =>
        el(
          'li',
          { key: id },
          owner.startsWith('key:') ? owner : link(linkTo('session', owner), 'a session'),
          ' ',
          small(`holds ${sizeText(bytes)}`),
        ),
      ),
    )
  )
}

const pools = (workers: readonly HeardWorker[]): Element =>
  table(
    'Memory by pool',
    ['Pool', 'Used', 'Evictable', 'Total', 'Pressure'],
    presentPools(workers).map(({ pool, device, host, name, used, evictable, total, pressure }) => [
      `${pool} ${device ?? host}`,
      pool === 'ram' ? `RAM of ${host}` : name,
      sizeOr(used),
      sizeText(evictable),
      sizeOr(total),
      pressure.level,
    ]),
  )

const sizeOr = (bytes: number | null): string => (bytes === null ? '–' : sizeText(bytes))
