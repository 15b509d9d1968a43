/** The page in a real browser, over an API whose sessions the test itself carries out. */
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { decode } from 'fast-png'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { writePng } from '../../src/domains/postprocessing/png.ts'
import { root } from '../../src/config.ts'
import { sketchOf, startHarness, type Harness } from '../api/harness.ts'
import { openBrowser, openTab, picture, stumbles } from '../support/browser.ts'
import { eventually } from '../support/wait.ts'

let h: Harness
let browser: Browser
beforeAll(async () => {
  ;[h, browser] = await Promise.all([startHarness(), openBrowser()])
})
afterAll(async () => {
  await browser?.close()
  await h?.stop()
})

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

  it('is small', () => {
    const folder = join(root, 'web', 'dist')
    const [script = ''] = readdirSync(folder).filter((name) => name.endsWith('.js'))
    expect(statSync(join(folder, script)).size).toBeLessThan(75 * 1024)
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
    await page.getByRole('button', { name: 'Delete' }).press('Enter')
    await page.getByRole('searchbox').waitFor()
    await page.getByText(/^2 sessions/).waitFor()
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
})

const rooms = ['table', 'draw', 'devices', 'models', 'workflows', 'workflows/model-loading'] as const

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
      await picture(page, `${room.replace(/\/.*/, '')}-${name.split(' ')[0]}`)
    }
    expect(faults).toEqual([])
  })
})

/** A key closes the farm, so this comes last. */
describe('with API keys', () => {
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
