/** The page in a real browser, over an API whose sessions the test itself carries out. */
import { readFileSync, statSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { decode } from 'fast-png'
import type { Browser, Page } from 'playwright-core'
import { beforeAll, describe, expect, it } from 'vitest'
import { writePng } from '../../src/domains/postprocessing/png.ts'
import { root } from '../../src/config.ts'
import { sketchOf, startHarness, type Harness } from '../api/harness.ts'
import { beside, openTab, picture, stumbles } from '../support/browser.ts'
import { eventually } from '../support/wait.ts'

const seen = beside(
  () => startHarness({ webhookHosts: ['127.0.0.1'], webhookNets: ['127.0.0.0/8'] }),
  (h) => h.stop(),
)
let h: Harness
let browser: Browser
beforeAll(() => ({ started: h, browser } = seen))

const submit = async (text = 'x', more: Record<string, unknown> = {}): Promise<string> =>
  (await h.client.post('/v1/sessions', sketchOf(text, more))).json.id as string
const draw = async (input: Record<string, unknown>): Promise<string> =>
  (await h.client.post('/v1/sessions', { workflow: 'image-generation', input })).json.id as string
const scrollsSideways = (page: Page): Promise<boolean> => page.evaluate<boolean>('document.documentElement.scrollWidth > innerWidth')

/** A picture of one colour; with texts, as programs write them. */
const pngOf = (side: number, texts: Record<string, string> = {}): Promise<Uint8Array> =>
  writePng(new Uint8Array(side * side * 3).fill(120), side, side, texts)

describe('the page', () => {
  it('is one script and one style sheet that never change, under a policy that lets nothing else run', async () => {
    const { text, headers } = await h.client.get('/')
    expect(headers['content-security-policy']).toMatch(/default-src 'none'; script-src 'self'; .*require-trusted-types-for 'script'/)
    expect(headers['cache-control']).toBe('no-cache')
    for (const [, path = ''] of text.matchAll(/(?:src|href)="(\/page\/[^"]+)"/g))
      expect((await h.client.get(path)).headers['cache-control']).toContain('immutable')
    expect((await h.client.get('/page/page.json')).status).toBe(404)
    expect((await h.client.get('/page/..%2f..%2fpackage.json')).status).toBe(404)
  })

  it('is small: what the table needs, what any room needs, and all of it', () => {
    const folder = join(root, 'web', 'dist')
    const built = JSON.parse(readFileSync(join(folder, 'page.json'), 'utf8')) as { script: string; needed: string[]; files: string[] }
    const kB = (names: string[]): number => names.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0) / 1000
    const scripts = built.files.filter((name) => name.endsWith('.js'))
    expect(kB([built.script, ...built.needed])).toBeLessThan(25)
    for (const name of scripts) expect(kB([name])).toBeLessThan(37)
    expect(kB(scripts)).toBeLessThan(60)
  })
})

describe('the table', () => {
  it('shows what happens as it happens, and is found through by its search line', async () => {
    const { page, faults } = await openTab(browser, h.url)
    await page.getByText('The table is empty').waitFor()
    const id = await submit('x', { tags: ['cat'] })
    await page.locator('.card.queued').waitFor()
    await h.finish(id)
    await page.locator('.card.succeeded img').waitFor()
    await submit()
    const search = page.getByRole('searchbox')
    for (const [line, count] of [
      ['tag:cat', 1],
      ['status:queued', 1],
      ['workflow:sketch', 2],
      ['tag:dog', 0],
    ] as const) {
      await search.fill(line)
      await page.getByText(new RegExp(`^${count} session`)).waitFor()
    }
    await search.fill('')
    await page.getByRole('button', { name: 'succeeded' }).click()
    expect(await search.inputValue()).toBe('status:succeeded')
    await page.getByText(/^1 session/).waitFor()
    expect(faults).toEqual([])
  })

  it('cancels and deletes many at once, with their number first, by the keyboard alone', async () => {
    for (let i = 0; i < 3; i++) await submit('x', { tags: ['many'] })
    const { page, faults } = await openTab(browser, h.url)
    await page.getByRole('searchbox').fill('tag:many')
    await page.getByText(/^3 sessions/).waitFor()
    await page.locator('.card a').first().focus()
    await page.keyboard.press('Space')
    await page.keyboard.press('ArrowRight')
    await page.keyboard.press('ArrowRight')
    await page.keyboard.press('Shift+Space')
    await page.getByText('3 sessions chosen').waitFor()
    await page.getByRole('button', { name: 'Cancel 3' }).press('Enter')
    await page.getByText('Cancel 3 sessions?').waitFor()
    await page.getByRole('button', { name: 'Cancel 3' }).press('Enter')
    await eventually(
      'they are cancelled',
      async () => (await h.client.get('/v1/sessions?tag=many&status=cancelled')).json.sessions.length === 3,
    )
    await page.locator('.card a').first().focus()
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: 'sketch' }).waitFor()
    await page.getByRole('button', { name: 'Delete', exact: true }).press('Enter')
    await page.getByRole('searchbox').waitFor()
    await page.getByText(/^2 sessions/).waitFor()
    expect(faults).toEqual([])
  })
})

describe('what one likes', () => {
  it('is starred and tagged, by the pointer and by the keyboard, and many at once with their number first', async () => {
    const ids = [await submit('x', { tags: ['liked'] }), await submit('x', { tags: ['liked'] })]
    const { page, faults } = await openTab(browser, h.url)
    await page.getByRole('searchbox').fill('tag:liked')
    await page.getByText(/^2 sessions/).waitFor()
    await page.locator('.card a').first().focus()
    await page.keyboard.press('s')
    const tagsOf = async (id = ''): Promise<string[]> => (await h.client.get(`/v1/sessions/${id}`)).json.tags as string[]
    await eventually('the newest is starred', async () => (await tagsOf(ids[1])).includes('star'))
    await page.locator('.card').last().getByRole('button', { name: /^Star/ }).click()
    await eventually('both are starred', async () => (await tagsOf(ids[0])).includes('star'))
    await page.getByRole('button', { name: 'starred' }).click()
    await page.getByText(/^2 sessions/).waitFor()
    for (const box of await page.getByRole('checkbox').all()) await box.check()
    await page.getByRole('button', { name: 'Tag 2' }).click()
    await page.getByLabel('Tag', { exact: true }).fill('chosen')
    await page.getByRole('button', { name: 'Tag 2 sessions' }).click()
    await eventually('both are tagged', async () => (await h.client.get('/v1/sessions?tag=chosen')).json.sessions.length === 2)
    expect(faults).toEqual([])
  })

  it('is laid over another: a line between the two that is moved, one or the other by the arrow keys', async () => {
    const ids: string[] = []
    for (const colour of [40, 200]) {
      const id = await submit('x', { tags: ['pair'] })
      await h.finish(id, Buffer.from(await writePng(new Uint8Array(64 * 64 * 3).fill(colour), 64, 64, {})))
      ids.push(id)
    }
    const { page, faults } = await openTab(browser, h.url)
    await page.getByRole('searchbox').fill('tag:pair')
    await page.getByText(/^2 sessions/).waitFor()
    for (const box of await page.getByRole('checkbox').all()) await box.check()
    await page.getByRole('link', { name: 'Compare' }).click()
    const upper = page.locator('.pair img').nth(1)
    await upper.waitFor()
    const cut = (): Promise<string> => page.evaluate<string>(`getComputedStyle(document.querySelectorAll('.pair img')[1]).clipPath`)
    const line = page.getByLabel('How much of A is seen')
    await line.fill('25')
    const quarter = await cut()
    expect(quarter).not.toBe('none')
    await line.blur()
    await page.keyboard.press('ArrowRight')
    await eventually('B alone', async () => (await line.inputValue()) === '0')
    await page.keyboard.press('ArrowLeft')
    await eventually('A alone', async () => (await line.inputValue()) === '100')
    expect(await cut()).not.toBe(quarter)
    expect(await stumbles(page)).toEqual([])
    expect(faults).toEqual([])
  })
})

describe('schedules and webhooks', () => {
  it('are made, seen and removed', async () => {
    const { page, faults } = await openTab(browser, `${h.url}/#/schedules`)
    await page.getByLabel('Name').fill('nightly')
    await page.getByLabel('Minute hour day month weekday').fill('30 2 * * 1-5')
    await page.locator('[name="session.workflow"]').selectOption('sketch')
    await page.getByLabel(/^Input/).fill('{"text": "again"}')
    await page.getByRole('button', { name: 'Make it' }).click()
    await page.getByText('30 2 * * 1-5').click()
    await page.getByRole('button', { name: 'Pause' }).click()
    await eventually('it is paused', async () => (await h.client.get('/v1/schedules')).json.schedules[0]?.isPaused === true)
    await page.getByRole('button', { name: 'Remove nightly' }).click()
    await page.getByRole('button', { name: 'Remove', exact: true }).click()
    await page.getByText('There is none.').waitFor()

    await page.getByRole('link', { name: 'Webhooks' }).click()
    await page.getByLabel('URL').fill('https://elsewhere.example/x')
    await page.getByRole('button', { name: 'Make it' }).click()
    await page.getByText('is not on a host of').waitFor()
    await page.getByLabel('URL').fill('http://127.0.0.1:9/x')
    await page.getByRole('button', { name: 'Make it' }).click()
    await page.getByText(/^whsec_/).waitFor()
    expect(await stumbles(page)).toEqual([])
    await page.getByRole('button', { name: 'I have it' }).click()
    expect(await page.getByText(/whsec_/).count()).toBe(0)
    const [webhook] = (await h.client.get('/v1/webhooks')).json.webhooks as { id: string }[]
    const id = await submit('x', { webhook: webhook?.id })
    await h.finish(id)
    await page.getByRole('link', { name: 'http://127.0.0.1:9/x' }).click()
    await page.getByRole('link', { name: 'session.succeeded' }).waitFor()
    await page.getByRole('button', { name: /^Remove/ }).click()
    await page.getByRole('button', { name: 'Remove', exact: true }).click()
    await page.getByText('There is none.').waitFor()
    expect(faults).toEqual([])
  })
})

describe('forms that the API tells', () => {
  it('send what is written in them, as its schemas have it', async () => {
    const { page, faults } = await openTab(browser, `${h.url}/#/workflows/sketch`)
    await page.getByLabel('text').fill('from a form')
    await page.getByRole('button', { name: 'Run' }).click()
    await page.getByRole('heading', { name: 'sketch', level: 1 }).waitFor()
    const [session] = (await h.client.get('/v1/sessions?limit=1')).json.sessions
    expect(session.input).toMatchObject({ text: 'from a form' })

    await page.goto(`${h.url}/#/schedules`)
    await page.getByRole('button', { name: 'every so many seconds' }).click()
    await page.getByLabel('Seconds').fill('3600')
    await page.getByLabel('Name').fill('hourly')
    await page.locator('[name="session.workflow"]').selectOption('sketch')
    await page.getByLabel(/^Input/).fill('{"text": ')
    await page.getByRole('button', { name: 'Make it' }).click()
    await page.getByRole('alert').waitFor()
    await page.getByLabel(/^Input/).fill('{"text": "again"}')
    await page.getByRole('button', { name: 'Make it' }).click()
    await page.getByText('every 3600 s').waitFor()
    const [schedule] = (await h.client.get('/v1/schedules')).json.schedules
    expect(schedule).toMatchObject({ name: 'hourly', everyS: 3600, cron: null, session: { input: { text: 'again' } } })
    await h.client.request('DELETE', `/v1/schedules/${schedule.id}`)

    await page.goto(`${h.url}/#/models`)
    const row = page.locator('.rows > li').filter({ hasText: '/models/darkroom-tiny' })
    await row.locator('summary').first().click()
    await row.getByText('What is said of it').click()
    await row.getByLabel('Title').fill('A small one')
    await row.getByLabel('Tags, between commas').fill('cat, , dog')
    await row.getByRole('button', { name: 'Keep it' }).click()
    await row.getByText('A small one').waitFor()
    const { annotation } = (await h.client.get('/v1/models/darkroom-tiny')).json
    expect(annotation).toMatchObject({ title: 'A small one', tags: ['cat', 'dog'], notes: '' })
    await h.client.request('DELETE', '/v1/models/darkroom-tiny/annotation')
    await row.getByRole('link', { name: 'Draw with it' }).click()
    await page.getByRole('button', { name: 'Model: darkroom-tiny' }).waitFor()
    expect(faults).toEqual([])
  })
})

describe('a batch', () => {
  it('is asked for beside the form, over the values of a field, and shows its items', async () => {
    const { page, faults } = await openTab(browser, `${h.url}/#/draw`)
    await page.getByRole('textbox', { name: 'Prompt' }).fill('a {red|blue} circle')
    await page.getByText(/^about \d+ tokens/).waitFor()
    await page.getByText(/queue|nobody waits|No worker/).waitFor()
    await page.getByText('Batch and grid').click()
    await page.getByRole('button', { name: 'Over values of a field' }).click()
    await page.getByLabel('Values, between commas').fill('4, 8')
    await page.getByLabel('Seeds of each').fill('3')
    await page.getByRole('button', { name: 'Draw 6 pictures as a batch' }).click()
    await page.getByRole('heading', { name: 'a {red|blue} circle' }).waitFor()
    await page.locator('.items li').nth(5).waitFor()
    const { sessions } = (await h.client.get('/v1/sessions?workflow=batch&limit=1')).json
    expect(sessions[0].input).toMatchObject({
      axes: [
        { field: 'steps', count: 2 },
        { field: 'seeds', count: 3 },
      ],
    })
    await page.getByRole('button', { name: 'Cancel' }).click()
    await eventually('it is cancelled', async () => (await h.client.get(`/v1/sessions/${sessions[0].id}`)).json.status === 'cancelled')
    expect(faults).toEqual([])
  })
})

describe('the form', () => {
  it('fills itself from a picture that tells of its request, when it is asked to, and draws inside the mask that is painted', async () => {
    const { page, faults } = await openTab(browser, `${h.url}/#/draw`)
    await page.getByRole('textbox', { name: 'Prompt' }).fill('my own words')
    await page.getByText('Picture to begin from').click()
    const told = 'a fox in the snow\nNegative prompt: fog\nSteps: 17, Sampler: Euler a, CFG scale: 4, Seed: 99, Size: 64x64'
    await page
      .locator('.source input[type=file]')
      .setInputFiles({ name: 'fox.png', mimeType: 'image/png', buffer: Buffer.from(await pngOf(64, { parameters: told })) })
    await page.getByRole('dialog').waitFor()
    expect(await page.getByRole('textbox', { name: 'Prompt' }).inputValue()).toBe('my own words')
    await page.getByLabel('Seed 99').uncheck()
    await page.getByRole('button', { name: 'Fill the form' }).click()
    expect(await page.getByRole('textbox', { name: 'Prompt' }).inputValue()).toBe('a fox in the snow')
    expect(await page.getByLabel('Steps').inputValue()).toBe('17')
    expect(await page.getByLabel('Seed', { exact: true }).inputValue()).toBe('')

    const canvas = page.locator('.layers canvas')
    await canvas.scrollIntoViewIfNeeded()
    const box = await canvas.boundingBox()
    if (!box) throw new Error('the painter is not shown')
    const at = (x: number, y: number): [number, number] => [box.x + x * box.width, box.y + y * box.height]
    await page.keyboard.press('Tab')
    await page.mouse.move(...at(0.25, 0.5))
    await page.mouse.down()
    await page.mouse.move(...at(0.75, 0.5), { steps: 6 })
    await page.mouse.up()
    await picture(page, 'draw-mask')
    /** The mask of the form, by place. */
    const mask = async (): Promise<((x: number, y: number) => number | undefined) | undefined> => {
      const id = await page.evaluate<string | undefined>(`JSON.parse(sessionStorage.getItem('darkroom.form')).mask?.source`)
      if (id === undefined) return undefined
      const { data, width, channels } = decode((await h.client.get(`/v1/artifacts/${id}`)).bytes)
      return (x, y) => data[(y * width + x) * channels]
    }
    await page.getByRole('button', { name: 'Draw', exact: true }).click()
    const sent = await eventually('a session with a mask', async () => {
      const { sessions } = (await h.client.get('/v1/sessions?workflow=image-generation&limit=1')).json
      return sessions[0]?.input.mask?.source as { sha256: string } | undefined
    })
    const first = await mask()
    expect(sent.sha256).toBe(await page.evaluate(`JSON.parse(sessionStorage.getItem('darkroom.form')).mask.source`))
    expect([first?.(32, 32), first?.(18, 32), first?.(4, 4), first?.(32, 60)]).toEqual([255, 255, 0, 0])

    // Taken back, the other way round, erased.
    await page.locator('.stage').focus()
    await page.keyboard.press('Control+z')
    expect(await page.getByRole('button', { name: 'Undo' }).isDisabled()).toBe(true)
    await page.getByRole('button', { name: 'All', exact: true }).click()
    await page.locator('.stage').focus()
    await page.keyboard.press('e')
    await canvas.scrollIntoViewIfNeeded()
    const again = (await canvas.boundingBox()) ?? box
    await page.mouse.move(again.x + again.width / 2, again.y + again.height / 2)
    await page.mouse.down()
    await page.mouse.up()
    await eventually('the mask as it was painted', async () => {
      const painted = await mask()
      return painted?.(32, 32) === 0 && painted(4, 4) === 255
    })
    expect(faults).toEqual([])
  })

  it('says what the browser and the API find wrong, beside the field', async () => {
    const { page, faults } = await openTab(browser, `${h.url}/#/draw`)
    await page.getByRole('button', { name: 'Draw', exact: true }).click()
    expect(await page.getByRole('textbox', { name: 'Prompt' }).evaluate((area) => area.validity.valueMissing)).toBe(true)
    await page.getByRole('textbox', { name: 'Prompt' }).fill('x')
    await page.getByLabel('Width').fill('4096')
    await page.getByLabel('Height').fill('4096')
    await page.getByRole('button', { name: 'Draw', exact: true }).click()
    expect(await page.locator('.fault').first().innerText()).toMatch(/pixels|largest/)
    expect(faults).toEqual([])
  })
})

describe('what strangers wrote', () => {
  it('is text and nothing else', async () => {
    const bad = '<img src=x onerror="document.title=1"><script>document.title=1</script>${7*7}javascript:alert(1)'
    const id = await draw({ prompt: bad, negativePrompt: bad })
    const { page, faults } = await openTab(browser, h.url)
    await page.getByRole('searchbox').fill('onerror')
    await page.locator('.card').first().waitFor()
    for (const path of [
      `#/session/${id}`,
      `#/session/${encodeURIComponent(bad)}`,
      '#/models',
      `#/workflows/${encodeURIComponent(bad)}`,
      '#/%zz',
    ]) {
      await page.goto(`${h.url}/${path}`)
      await page.locator('main').waitFor()
    }
    await page.goto(`${h.url}/#/session/${id}`)
    await page.getByRole('heading', { name: '<img src=x' }).waitFor()
    expect(await page.title()).toBe('Darkroom')
    expect(await page.locator('img[src=x]').count()).toBe(0)
    expect(faults).toEqual([])
  })

  it('so are the names of models, of files, of tags, of schedules, and what a picture tells of itself', async () => {
    const bad = '<img src=x onerror=document.title=1>'
    await writeFile(join(h.config.models[0] ?? '', `${bad}.safetensors`), 'no model')
    await h.client.post('/v1/models/rescan')
    await h.client.post('/v1/schedules', { name: bad, everyS: 86_400, session: sketchOf(bad) })
    const { page, faults } = await openTab(browser, `${h.url}/#/models`)
    await page.getByText(bad).first().waitFor()
    await page.goto(`${h.url}/#/schedules`)
    await page.getByText(bad).first().waitFor()
    await page.goto(`${h.url}/#/draw`)
    await page.getByText('Picture to begin from').click()
    const told = `${bad}\nNegative prompt: ${bad}\nSteps: 17, Sampler: ${bad}, Seed: 99, Size: 64x64, Model: ${bad}`
    const buffer = Buffer.from(await pngOf(64, { parameters: told, [`<b>`]: bad }))
    await page.locator('.source input[type=file]').setInputFiles({ name: `${bad}.png`, mimeType: 'image/png', buffer })
    await page.getByRole('dialog').getByText(bad).first().waitFor()
    await page.getByRole('button', { name: 'Fill the form' }).click()
    // What runs when it is opened is no picture, whatever it says that it is.
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" onload="document.title=1"><script>document.title=1</script></svg>`
    await page.locator('.source input[type=file]').setInputFiles({ name: 'x.png', mimeType: 'image/png', buffer: Buffer.from(svg) })
    await page.getByRole('alert').getByText(/SVG/).waitFor()
    expect(await page.title()).toBe('Darkroom')
    expect(await page.locator('img[src=x], svg script').count()).toBe(0)
    expect(faults).toEqual([])
    for (const { id } of (await h.client.get('/v1/schedules')).json.schedules) await h.client.request('DELETE', `/v1/schedules/${id}`)
  })
})

const rooms = [
  'table',
  'draw',
  'queue',
  'batches',
  'schedules',
  'devices',
  'models',
  'workflows',
  'workflows/model-loading',
  'webhooks',
  'keys',
] as const

describe('every room', () => {
  it.each([
    { name: 'light and wide', options: { colorScheme: 'light', viewport: { width: 1600, height: 1000 } } },
    { name: 'dark on a phone', options: { colorScheme: 'dark', viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true } },
  ] as const)('$name: nobody stumbles, and nothing scrolls sideways', async ({ name, options }) => {
    const id = await submit()
    await h.finish(id)
    const { page, faults } = await openTab(browser, h.url, options)
    for (const room of [...rooms, `session/${id}`]) {
      await page.goto(`${h.url}/#/${room}`)
      await page.locator('main h1').first().waitFor({ state: 'attached' })
      expect(await stumbles(page), room).toEqual([])
      expect(await scrollsSideways(page), room).toBe(false)
      for (const link of await page.locator('.top nav [aria-current]').all()) {
        const { x, width } = (await link.boundingBox()) ?? { x: -1, width: 0 }
        expect([x >= 0, x + width <= (page.viewportSize()?.width ?? 0)], room).toEqual([true, true])
      }
      await picture(page, `${room.replace(/\/.*/, '')}-${name.split(' ')[0]}`)
    }
    expect(faults).toEqual([])
  })
})

/** A key closes the farm, so this comes last. */
describe('with API keys', () => {
  it('the page makes the first one and goes on with it, makes others, and revokes them', async () => {
    const { page, faults } = await openTab(browser, `${h.url}/#/keys`)
    await page.getByText('There is no key').waitFor()
    await page.getByLabel('Name').fill('<b>first</b>')
    await page.getByRole('button', { name: 'Make it' }).click()
    const key = await page.getByText(/^dk_/).innerText()
    expect((await h.client.get('/v1/sessions')).status).toBe(401)
    await page.getByRole('button', { name: 'I have it' }).click()
    await page.getByRole('rowheader', { name: /first.*yours/ }).waitFor()
    await page.getByLabel('Name').fill('second')
    await page.getByLabel('operate').uncheck()
    await page.getByRole('button', { name: 'Make it' }).click()
    await page.getByRole('button', { name: 'I have it' }).click()
    await page.getByRole('button', { name: 'Revoke second' }).click()
    await page.getByRole('button', { name: 'Revoke', exact: true }).click()
    await page.getByRole('rowheader', { name: /second/ }).waitFor({ state: 'detached' })
    await picture(page, 'keys')
    await page.getByRole('button', { name: 'Revoke <b>first</b>' }).click()
    await page.getByRole('button', { name: 'Revoke', exact: true }).click()
    await page.getByLabel('API key').waitFor()
    expect(await h.keys.find(key)).toBeUndefined()
    expect(faults).toEqual([])
  })

  it('the page asks for one, shows no more than it may do, and is shut when it is revoked', async () => {
    const { key, keyId } = await h.withKey('read')
    const { page, faults } = await openTab(browser, h.url)
    await page.getByLabel('API key').fill('dk_00000000_wrong')
    await page.getByRole('button', { name: 'Come in' }).click()
    await page.getByText('The API key is not valid').waitFor()
    expect(await stumbles(page)).toEqual([])
    await picture(page, 'login')
    await page.getByLabel('API key').fill(key)
    await page.getByRole('button', { name: 'Come in' }).click()
    await page.getByText('The table is empty').waitFor()
    expect(await page.evaluate<string>('document.cookie')).toBe('')
    await page.getByRole('link', { name: 'Draw', exact: true }).click()
    await page.getByText('This key may not draw').waitFor()
    await page.reload()
    await page.getByRole('button', { name: 'Leave' }).waitFor()
    await h.keys.revoke(keyId)
    await page.getByLabel('API key').waitFor()
    expect(faults).toEqual([])
  })
})
