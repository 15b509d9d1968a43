/** Rooms of the page, in markup: what each tells, and to whom. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Markup } from '../../src/client/index.ts'
import { sketchOf, startHarness, type Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness({ webhookHosts: ['127.0.0.1'], webhookNets: ['127.0.0.0/8'] })
})
afterAll(() => h.stop())

const rooms = ['batches', 'devices', 'keys', 'models', 'schedules', 'webhooks', 'workflows'] as const

/** All elements of it. */
const within = (markup: Markup): Exclude<Markup, string | number>[] =>
  typeof markup === 'object' ? [markup, ...(markup.of ?? []).flatMap(within)] : []
const textOf = (markup: Markup): string => (typeof markup === 'object' ? (markup.of ?? []).map(textOf).join('') : String(markup))
const tell = async (path: string, client = h.client) => {
  const { status, json } = await client.get(`/v1/rooms/${path}`)
  return { status, json, markup: json.markup as Markup }
}

describe('a room', () => {
  it.each(rooms)('%s: has a name, and no element that runs anything', async (name) => {
    const { status, json, markup } = await tell(name)
    expect(status).toBe(200)
    expect(json.everyMs).toBeGreaterThan(999)
    const elements = within(markup)
    expect(elements.find(({ is }) => is === 'h1')).toBeDefined()
    for (const { is, has = {} } of elements) {
      expect(is).not.toMatch(/^(script|iframe|object|embed|style|base)$/i)
      expect(Object.keys(has).filter((attribute) => /^on|^srcdoc$|^ref$/i.test(attribute))).toEqual([])
      expect(has['href'] ?? '#').toMatch(/^(#|\/v1\/)/)
    }
  })

  it('tells what strangers wrote as text', async () => {
    const bad = '<img src=x onerror=alert(1)>'
    await h.client.post('/v1/schedules', { name: bad, everyS: 86_400, session: sketchOf(bad) })
    const { markup } = await tell('schedules')
    expect(textOf(markup)).toContain(bad)
    expect(within(markup).filter(({ is }) => is === 'img')).toEqual([])
  })

  it('is not there under any other name, and takes nothing else', async () => {
    expect((await tell('attic')).status).toBe(422)
    expect((await tell('keys?other=1')).status).toBe(422)
    expect((await tell('session?of=0-01m8jrevvex14kajmeh314btkk')).status).toBe(404)
    expect((await tell('compare?of=x,y')).status).toBe(404)
  })

  it('offers the fields of a workflow as its schema has them', async () => {
    const { markup } = await tell('workflows?of=model-loading')
    const fields = within(markup).flatMap(({ has }) => (typeof has?.['name'] === 'string' ? [has['name']] : []))
    expect(fields).toContain('input.model')
    expect(within(markup).find(({ is }) => is === 'Send')?.has).toMatchObject({
      send: { path: '/sessions', body: { workflow: 'model-loading', input: {} }, to: 'session' },
    })
  })

  it('tells of two sessions what differs', async () => {
    const [one, two] = await Promise.all(
      ['x', 'y'].map(async (text) => (await h.client.post('/v1/sessions', sketchOf(text))).json.id as string),
    )
    const { markup } = await tell(`compare?of=${one},${two}`)
    const rows = within(markup).filter(({ is, has }) => is === 'tr' && has?.['key'] !== undefined)
    expect(rows.map(textOf)).toEqual(['textxy'])
  })
})

/** A key closes the farm, so this comes last. */
describe('with API keys', () => {
  it('a room shows a key what is its own, and no verb that it may not say', async () => {
    const webhook = (await h.client.post('/v1/webhooks', { url: 'http://127.0.0.1:9/x' })).json.url as string
    const reader = await h.withKey('read')
    expect(textOf((await tell('keys', reader)).markup)).toContain('whoever may operate the farm')
    for (const name of ['webhooks', 'schedules', 'batches', 'models', 'keys']) {
      const { markup } = await tell(name, reader)
      expect(within(markup).filter(({ is }) => is === 'Send' || is === 'Act')).toEqual([])
      expect(textOf(markup)).not.toContain(webhook)
    }
    expect((await tell('keys')).status).toBe(401)
  })
})
