/** Metrics as a scraper gets them: read line by line, and by Prometheus' own checker where there is one. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import { publishWorker } from '../../src/farm/presence.ts'
import { eventually } from '../support/wait.ts'
import { workerRecord } from '../support/report.ts'
import { sketchOf, startHarness, type Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

interface Sample {
  name: string
  labels: Record<string, string>
  value: number
}

async function scrape(): Promise<{ text: string; samples: Sample[]; types: Map<string, string> }> {
  const { status, text, headers } = await h.client.get('/metrics')
  expect([status, headers['content-type']]).toEqual([200, 'text/plain; version=0.0.4; charset=utf-8'])
  const samples = [...text.matchAll(/^(\w+)(?:\{(.*)\})? (\S+)$/gm)].map(([, name = '', labels = '', value]) => ({
    name,
    labels: Object.fromEntries([...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, label = '', words = '']) => [label, words])),
    value: Number(value),
  }))
  const types = new Map([...text.matchAll(/^# TYPE (\w+) (\w+)$/gm)].map(([, name = '', type = '']) => [name, type]))
  return { text, samples, types }
}

const valueOf = (samples: Sample[], name: string, labels: Record<string, string> = {}): number | undefined =>
  samples.find((each) => each.name === name && Object.entries(labels).every(([label, words]) => each.labels[label] === words))?.value

it('tells of sessions: how many there are, and how many have ended, also when they are gone', async () => {
  const before = await scrape()
  const open = (await h.client.post('/v1/sessions', sketchOf('open'))).json.id as string
  const ended = (await h.client.post('/v1/sessions', sketchOf('ended'))).json.id as string
  await h.client.post(`/v1/sessions/${ended}/cancel`)
  await h.client.request('DELETE', `/v1/sessions/${ended}`)
  const { samples } = await eventually('the figures of now', async () => {
    const now = await scrape()
    return (
      valueOf(now.samples, 'darkroom_sessions_created_total') === (valueOf(before.samples, 'darkroom_sessions_created_total') ?? 0) + 2 &&
      now
    )
  })
  expect(valueOf(samples, 'darkroom_sessions', { status: 'queued' })).toBe(1)
  expect(valueOf(samples, 'darkroom_sessions', { status: 'cancelled' })).toBe(0)
  expect(valueOf(samples, 'darkroom_sessions_ended_total', { status: 'cancelled' })).toBe(1)
  expect(valueOf(samples, 'darkroom_due_entries', { list: 'outbox' })).toBe(1)
  await h.client.post(`/v1/sessions/${open}/cancel`)
})

it('tells of devices what they tell, and nothing in place of what they do not', async () => {
  const record = workerRecord({ id: 'w-metrics' })
  record.report = { ...record.report, vitals: { ...record.report.vitals, utilization: 50, temperature: null } }
  await publishWorker(h.redis, record, [])
  const { samples } = await eventually('its figures', async () => {
    const now = await scrape()
    return valueOf(now.samples, 'darkroom_device_utilization_ratio', { worker: 'w-metrics' }) === 0.5 && now
  })
  expect(valueOf(samples, 'darkroom_device_temperature_celsius')).toBeUndefined()
  expect(valueOf(samples, 'darkroom_workers', { status: record.status })).toBe(1)
})

it('counts requests by their route, not by what stood in their place', async () => {
  for (let i = 0; i < 5; i++) await h.client.get(`/v1/sessions/none-${i}`)
  for (let i = 0; i < 5; i++) await h.client.get(`/v1/nowhere/${i}`)
  const { samples } = await scrape()
  const counts = samples.filter(({ name }) => name === 'darkroom_http_request_duration_seconds_count')
  expect(valueOf(counts, 'darkroom_http_request_duration_seconds_count', { route: '/v1/sessions/:id', status: '404' })).toBe(5)
  expect(counts.filter(({ labels }) => JSON.stringify(labels).includes('none-') || JSON.stringify(labels).includes('nowhere'))).toEqual([])
})

it('keeps the conventions: counters alone end in _total, units are base units, each series has a help', async () => {
  const { text, types } = await scrape()
  const own = [...types].filter(([name]) => name.startsWith('darkroom_'))
  expect(own.length).toBeGreaterThan(20)
  for (const [name, type] of own) {
    expect(name.endsWith('_total'), name).toBe(type === 'counter')
    expect(name).not.toMatch(/_(ms|milliseconds|mb|megabytes|percent)(_|$)/)
    expect(text).toContain(`# HELP ${name} `)
  }
})

const hasPromtool = spawnSync('promtool', ['--version']).status === 0
it.skipIf(!hasPromtool)('passes promtool check metrics (skipped where the program promtool is not installed)', async () => {
  const { stdout, stderr, status } = spawnSync('promtool', ['check', 'metrics'], { input: (await scrape()).text, encoding: 'utf8' })
  // What the runtime tells has names of prom-client's own.
  const own = `${stdout}${stderr}`.split('\n').filter((line) => line.includes('darkroom_'))
  expect({ own, isRead: status !== 1 }).toEqual({ own: [], isRead: true })
})

it('has every series that the dashboard shows', async () => {
  const { types } = await scrape()
  const known = new Set([...types.keys()].flatMap((name) => [name, `${name}_bucket`, `${name}_count`]))
  const { panels } = JSON.parse(readFileSync(join(root, 'docs/grafana.json'), 'utf8')) as { panels: { targets: { expr: string }[] }[] }
  const shown = panels.flatMap(({ targets }) => targets.flatMap(({ expr }) => expr.match(/darkroom_\w+/g) ?? []))
  expect(shown.length).toBeGreaterThan(14)
  expect(shown.filter((name) => !known.has(name))).toEqual([])
})

it('is for keys with its own scope, where there are keys', async () => {
  const [scraper, reader] = [await h.withKey('metrics'), await h.withKey('read', 'submit', 'control', 'operate')]
  expect((await scraper.get('/metrics')).status).toBe(200)
  expect((await reader.get('/metrics')).json).toMatchObject({ status: 403, code: 'api.forbidden' })
  expect((await scraper.get('/v1/sessions')).json).toMatchObject({ status: 403 })
  expect((await h.client.get('/metrics')).json).toMatchObject({ status: 401 })
})
