import { buffer } from 'node:stream/consumers'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { fromBuffer, type Entry, type ZipFile } from 'yauzl'
import type { Item, ItemPage, Session } from '../../src/client/index.ts'
import { eventually } from '../support/wait.ts'
import { startHarness, type Harness } from './harness.ts'

const open = promisify<Buffer, { lazyEntries: true }, ZipFile>(fromBuffer)

/** Names and bytes of the files in a ZIP, as another program reads it. */
async function unzip(bytes: Buffer): Promise<Map<string, Buffer>> {
  const zip = await open(bytes, { lazyEntries: true })
  const files = new Map<string, Buffer>()
  return new Promise((resolve, reject) => {
    zip.on('entry', (entry: Entry) => {
      zip.openReadStream(entry, (error, stream) => {
        if (error) return reject(error)
        buffer(stream).then((content) => {
          files.set(entry.fileName, content)
          zip.readEntry()
        }, reject)
      })
    })
    zip.on('end', () => resolve(files))
    zip.on('error', reject)
    zip.readEntry()
  })
}

describe('items over HTTP', () => {
  let h: Harness
  beforeAll(async () => {
    h = await startHarness()
  })
  afterAll(() => h.stop())

  const post = (input: Record<string, unknown>, client = h.client) => client.post('/v1/sessions', { workflow: 'batch', input })
  const batchOf = async (count: number, more: Record<string, unknown> = {}, client = h.client): Promise<Session> => {
    const items = Array.from({ length: count }, (_, n) => ({ text: `item ${n}` }))
    const answer = await post({ workflow: 'sketch', items, window: 4, ...more }, client)
    expect(answer.status, answer.text).toBe(202)
    const session = answer.json as Session
    await eventually('its first items', async () => (await page(session.id)).items.some((item) => item.session !== null))
    return session
  }
  const page = async (id: string, query = ''): Promise<ItemPage> =>
    (await h.client.get(`/v1/sessions/${id}/items${query}`)).json as ItemPage
  const opened = async (id: string): Promise<Item[]> => (await page(id, '?status=queued&limit=200')).items

  it('are listed page by page, each with the request that gives it alone', async () => {
    const { id, input, progress } = await batchOf(7)
    expect(input).toEqual({
      workflow: 'sketch@1',
      input: {},
      axes: [{ field: 'items', count: 7 }],
      window: 4,
      order: 'listed',
      onFailure: 'continue',
    })
    expect(progress?.items).toMatchObject({ total: 7 })
    const met: Item[] = []
    for (let cursor: string | null = '0'; cursor !== null;) {
      const answer: ItemPage = await page(id, `?limit=3&cursor=${cursor}`)
      met.push(...answer.items)
      cursor = answer.next
    }
    expect(met.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5, 6])
    expect(met.map(({ status }) => status)).toEqual([...Array<string>(4).fill('queued'), ...Array<string>(3).fill('waiting')])
    expect(met[6]).toEqual({
      index: 6,
      status: 'waiting',
      session: null,
      input: { text: 'item 6' },
      progress: null,
      output: null,
      error: null,
    })
    expect((await h.client.get(`/v1/sessions/${met[0]?.session}`)).json).toMatchObject({ parent: id, input: { text: 'item 0' } })
    expect((await page(id, '?status=waiting')).items).toHaveLength(3)
    await h.engine.control(id, 'cancel')
    expect((await page(id, '?status=waiting')).items).toEqual([])
  })

  it('come as a ZIP with what there is by now', async () => {
    const { id } = await batchOf(3)
    expect((await h.client.get(`/v1/sessions/${id}/results.zip`)).json).toMatchObject({ status: 409, code: 'session.no_results' })
    const [first, , third] = await opened(id)
    const pictures = [Buffer.from('\x89PNG first'), Buffer.from('\x89PNG third')]
    await h.finish(first?.session ?? '', pictures[0])
    await h.finish(third?.session ?? '', pictures[1])
    const answer = await h.client.get(`/v1/sessions/${id}/results.zip`)
    expect([answer.status, answer.headers['content-type']]).toEqual([200, 'application/zip'])
    const files = await unzip(answer.bytes)
    expect([...files.keys()]).toEqual(['00000.png', '00002.png', 'items.json'])
    expect([files.get('00000.png'), files.get('00002.png')]).toEqual(pictures)
    expect(JSON.parse(files.get('items.json')?.toString() ?? '')).toMatchObject([
      { index: 0, status: 'succeeded', input: { text: 'item 0' }, files: ['00000.png'] },
      { index: 1, status: 'queued', files: [] },
      { index: 2, status: 'succeeded', files: ['00002.png'] },
    ])
    expect((await h.client.request('HEAD', `/v1/sessions/${id}/results.zip`)).status).toBe(200)
    await h.engine.control(id, 'cancel')
  })

  it('are for those who see their session', async () => {
    const [owner, other] = [await h.withKey('submit', 'read'), await h.withKey('submit', 'read')]
    const answer = await post({ workflow: 'sketch', items: [{ text: 'x' }] }, owner)
    const { id } = answer.json as Session
    for (const path of ['items', 'results.zip']) {
      expect((await other.get(`/v1/sessions/${id}/${path}`)).json).toMatchObject({ status: 404, code: 'session.unknown' })
      expect((await owner.get(`/v1/sessions/${id}/${path}`)).status).toBe(path === 'items' ? 200 : 409)
    }
    expect((await other.post(`/v1/sessions/${id}/sheet`, {})).json).toMatchObject({ code: 'session.unknown' })
    await h.engine.control(id, 'cancel')
    for (const key of await h.keys.list()) await h.keys.revoke(key.id)
    await h.keys.open()
  })

  it('are none of a session that works off none', async () => {
    const { id } = (await h.client.post('/v1/sessions', { workflow: 'sketch', input: { text: 'x' } })).json as Session
    expect((await h.client.get(`/v1/sessions/${id}/items`)).json).toMatchObject({ status: 409, code: 'session.no_items' })
    expect((await h.client.get(`/v1/sessions/${id}/items?cursor=-1`)).json).toMatchObject({ status: 422, problems: [{ field: 'cursor' }] })
    expect((await h.client.post(`/v1/sessions/${id}/sheet`, {})).json).toMatchObject({ status: 422, code: 'api.invalid' })
    await h.engine.control(id, 'cancel')
  })

  it.each<[string, Record<string, unknown>, string, RegExp]>([
    ['an unknown workflow', { workflow: 'sketches' }, 'input.workflow', /no workflow sketches/],
    ['a batch of batches', { workflow: 'batch' }, 'input.workflow', /work off items themselves/],
    ['no items', { workflow: 'sketch', items: [] }, 'input.items', /./],
    ['an item at fault', { workflow: 'sketch', items: [{ text: 'x' }, { text: 3 }] }, 'input.items.1.text', /string/],
    ['what all lack', { workflow: 'sketch', items: [{}] }, 'input.input.text', /./],
    ['a value of the grid', { workflow: 'sketch', grid: { text: ['x', 'y'.repeat(101)] } }, 'input.grid.text', /100/],
    [
      'an unknown model',
      { input: { prompt: 'x' }, grid: { model: ['darkroom-tiny', 'darkroom-tiney'] } },
      'input.grid.model',
      /darkroom-tiney/,
    ],
    [
      'a limit that only the model has',
      { input: { prompt: 'x' }, items: [{}, { sampler: 'Eulr' }] },
      'input.items.1.sampler',
      /Eulr|Euler/,
    ],
    ['a file of wildcards without a folder', { input: { prompt: 'a __color__ x' } }, 'input.wildcards', /DARKROOM_WILDCARDS/],
    ['a window of none', { workflow: 'sketch', items: [{ text: 'x' }], window: 0 }, 'input.window', /./],
    ['a policy that is none', { workflow: 'sketch', items: [{ text: 'x' }], onFailure: 'ignore' }, 'input.onFailure', /./],
  ])('are refused whole: %s', async (_, input, field, words) => {
    const batches = async (): Promise<number> =>
      (await h.client.get('/v1/sessions?workflow=batch&limit=200')).json.sessions.length as number
    const before = await batches()
    const answer = await post(input)
    expect(answer.json, answer.text).toMatchObject({ status: 422, field })
    expect((answer.json as { detail: string }).detail).toMatch(words)
    expect(await batches()).toBe(before)
  })
})
