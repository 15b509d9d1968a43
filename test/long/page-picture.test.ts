/** A picture as somebody sees it who looks at the page: drawn, paused, reloaded, its API killed, drawn to its end. */
import { expect, it } from 'vitest'
import { decode } from 'fast-png'
import type { Page } from 'playwright-core'
import { beside, openTab, picture, stumbles } from '../support/browser.ts'
import { startFarm } from '../support/farm.ts'

const slow = 240_000
const inTime = { timeout: 30_000 }
const seen = beside(
  () => startFarm({ workers: 1, real: true, checkpointCalls: 1 }),
  (farm) => farm[Symbol.asyncDispose](),
  slow,
)

const srcOf = (page: Page): Promise<string> => page.locator('.viewer img').evaluate((image) => image.getAttribute('src') ?? '')
/** Whether the browser has decoded it. */
const isThere = (page: Page): Promise<boolean> => page.locator('.viewer img').evaluate((image) => image.complete && image.naturalWidth > 0)

it('goes from the form to its end through a pause, a reload and the death of its API; a second tab agrees', { timeout: slow }, async () => {
  const { started: farm, browser } = seen
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

  // Drawn again from its receipt it has the same bytes, though it was paused on the way; and one forks from it.
  await page.getByRole('button', { name: 'Verify' }).click()
  await page.getByText('The same bytes.').waitFor({ timeout: slow })
  await page
    .getByRole('button', { name: /^Fork from .*denoising/ })
    .first()
    .click()
  const drawn = page.url()
  await page.getByRole('button', { name: 'Fork', exact: true }).click()
  await page.waitForURL((url) => url.href !== drawn)
  await state.getByText('succeeded').waitFor({ timeout: slow })
  await page.goto(drawn)

  await page.getByRole('button', { name: 'Use again' }).click()
  await page.getByRole('button', { name: 'Fill the form' }).click()
  expect(await page.getByRole('textbox', { name: 'Prompt' }).inputValue()).toBe('a red circle left of a blue square on yellow')
  expect(await page.getByLabel('Steps').inputValue()).toBe('120')
  expect(await page.getByLabel('Seed', { exact: true }).inputValue()).toBe('8')
  expect([...faults, ...other.faults]).toEqual([])
})

it('draws inside a mask that a pointer has painted, and nowhere else', { timeout: slow }, async () => {
  const { started: farm, browser } = seen
  const size = { width: 128, height: 128, steps: 12 }
  const id = await farm.submit({ prompt: 'a red circle left of a blue square on yellow', seed: 8, ...size })
  const [sha256 = ''] = await farm.pictures(id, slow)
  const { bytes } = await farm.client.get(`/v1/artifacts/${sha256}`)
  // It is the newest one of its model, which has none beside it.
  const thumbnail = (await farm.client.get(`/v1/artifacts/${sha256}?size=256`)).bytes
  await expect.poll(async () => (await farm.client.get('/v1/models/darkroom-tiny/picture')).bytes.equals(thumbnail), inTime).toBe(true)
  const { page, faults } = await openTab(browser, `${farm.client.url}/#/draw`)
  await page.getByText('Picture to begin from').click()
  const file = { name: 'drawn.png', mimeType: 'image/png', buffer: Buffer.from(bytes) }
  await page.locator('.source input[type=file]').setInputFiles(file)
  // Its own request is offered: all of it but the prompt and the seed.
  await page.getByRole('dialog').waitFor()
  await page.getByRole('checkbox', { name: /^Prompt/ }).uncheck()
  await page.getByRole('checkbox', { name: /^Seed/ }).uncheck()
  await page.getByRole('button', { name: 'Fill the form' }).click()
  await page.getByRole('textbox', { name: 'Prompt' }).fill('a large green star on black')
  await page.getByLabel('Strength').fill('1')
  await page.getByRole('button', { name: 'Box' }).click()
  const canvas = page.locator('.layers canvas')
  await canvas.scrollIntoViewIfNeeded()
  const box = await canvas.boundingBox()
  if (!box) throw new Error('the painter is not shown')
  const at = (x: number, y: number): [number, number] => [box.x + x * box.width, box.y + y * box.height]
  await page.mouse.move(...at(0.05, 0.05))
  await page.mouse.down()
  await page.mouse.move(...at(0.45, 0.95), { steps: 5 })
  await page.mouse.up()
  await page.getByRole('button', { name: 'Draw', exact: true }).click()
  await page.locator('.results .state').getByText('succeeded').waitFor({ timeout: slow })
  const painted = await page.locator('.results a.sheet').getAttribute('href')
  const [other = ''] = await farm.pictures(painted?.split('/').at(-1) ?? '')
  const [before, after] = [decode(bytes), decode((await farm.client.get(`/v1/artifacts/${other}`)).bytes)]
  /** Mean difference of the pixels between these columns, 0 to 255. */
  const difference = (from: number, to: number): number => {
    let [sum, count] = [0, 0]
    for (let y = 0; y < before.height; y++)
      for (let i = (y * before.width + from) * before.channels; i < (y * before.width + to) * before.channels; i++, count++)
        sum += Math.abs((before.data[i] ?? 0) - (after.data[i] ?? 0))
    return sum / count
  }
  expect(difference(12, 52)).toBeGreaterThan(25)
  expect(difference(76, 128)).toBeLessThan(1)
  expect(faults).toEqual([])
})
