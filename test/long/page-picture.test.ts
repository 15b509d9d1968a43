/** A picture as somebody sees it who looks at the page: drawn, paused, reloaded, its API killed, drawn to its end. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Browser, Page } from 'playwright-core'
import { openBrowser, openTab, picture, stumbles } from '../support/browser.ts'
import { startFarm, type Farm } from '../support/farm.ts'

const slow = 240_000
const inTime = { timeout: 30_000 }
let farm: Farm
let browser: Browser
beforeAll(async () => {
  ;[farm, browser] = await Promise.all([startFarm({ workers: 1, real: true, checkpointCalls: 1 }), openBrowser()])
}, slow)
afterAll(async () => {
  await browser?.close()
  await farm?.[Symbol.asyncDispose]()
}, 60_000)

const srcOf = (page: Page): Promise<string> => page.locator('.viewer img').evaluate((image) => image.getAttribute('src') ?? '')
/** Whether the browser has decoded it. */
const isThere = (page: Page): Promise<boolean> => page.locator('.viewer img').evaluate((image) => image.complete && image.naturalWidth > 0)

it('goes from the form to its end through a pause, a reload and the death of its API; a second tab agrees', { timeout: slow }, async () => {
  const { page, faults } = await openTab(browser, `${farm.client.url}/#/draw`)
  await page.getByRole('textbox', { name: 'Prompt' }).fill('a red circle left of a blue square on yellow')
  await page.getByLabel('Steps').fill('120')
  await page.getByLabel('Seed', { exact: true }).fill('8')
  await page.getByRole('button', { name: 'Draw', exact: true }).click()
  await page.locator('.results img.preview').waitFor()
  await picture(page, 'draw-running')
  await page.locator('.results a.sheet').click()
  const state = page.locator('.facts .state')
  await state.getByText(/step \d+ of 120/).waitFor()
  const first = await srcOf(page)
  await expect.poll(() => srcOf(page), inTime).not.toBe(first)

  await page.getByRole('button', { name: 'Pause' }).click()
  await state.getByText('paused').waitFor()
  await page.locator('.viewer').getByText('draft').waitFor()
  await expect.poll(() => isThere(page), inTime).toBe(true)
  await picture(page, 'session-paused')
  expect(await stumbles(page)).toEqual([])

  await page.reload()
  await state.getByText('paused').waitFor()
  const [api] = farm.apis
  await api?.kill()
  await page.getByText('Not connected').waitFor()
  await api?.start()
  await page.getByText(/1 open/).waitFor()
  await page.getByRole('button', { name: 'Resume' }).click()

  const other = await openTab(browser, farm.client.url)
  await other.page.locator('.card.running, .card.succeeded').waitFor()
  await state.getByText('succeeded').waitFor({ timeout: slow })
  await other.page.locator('.card.succeeded').waitFor()
  await expect.poll(() => isThere(page), inTime).toBe(true)
  expect(await srcOf(page)).toMatch(/^\/v1\/artifacts\/[0-9a-f]{64}$/)
  // The pause and what came after it are told, and no entry of the history is missing or stands twice.
  await page.getByText('went on from call').waitFor()
  await page.getByText(/^Events · \d+$/).click()
  const numbers = await page.locator('.events li').evaluateAll((entries) => entries.map(({ value }) => value))
  expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, i) => i + 1))
  await picture(page, 'session-done')

  await page.getByRole('button', { name: 'Use again' }).click()
  await page.getByRole('button', { name: 'Fill the form' }).click()
  expect(await page.getByRole('textbox', { name: 'Prompt' }).inputValue()).toBe('a red circle left of a blue square on yellow')
  expect(await page.getByLabel('Steps').inputValue()).toBe('120')
  expect(await page.getByLabel('Seed', { exact: true }).inputValue()).toBe('8')
  expect([...faults, ...other.faults]).toEqual([])
})
