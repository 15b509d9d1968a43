/** The light table with a great many sessions on it. */
import { expect, it } from 'vitest'
import { sketchOf, startHarness } from '../api/harness.ts'
import { beside, openTab } from '../support/browser.ts'
import { eventually } from '../support/wait.ts'

const many = 1000
const seen = beside(
  () => startHarness(),
  (h) => h.stop(),
)

it('holds a thousand sessions in a few dozen elements, comes to its end, and finds one by its id', { timeout: 120_000 }, async () => {
  const { started: h, browser } = seen
  const submit = async (): Promise<string> => (await h.client.post('/v1/sessions', sketchOf('x'))).json.id as string
  const [first = ''] = await Promise.all(Array.from({ length: many }, submit))
  const { page, faults } = await openTab(browser, h.url)
  const cards = page.locator('.card')
  await cards.first().waitFor()
  expect(await cards.count()).toBeLessThan(80)
  await eventually('the end of the table', async () => {
    await page.evaluate('scrollTo(0, document.documentElement.scrollHeight)')
    return (await cards.last().getAttribute('aria-posinset')) === String(many)
  })
  expect(await cards.count()).toBeLessThan(80)
  // What comes anew on top does not move who looks at the end.
  const place = await page.evaluate<number>('scrollY')
  await submit()
  await page.getByText(`${(many + 1).toLocaleString('en')} sessions`).waitFor()
  expect(Math.abs((await page.evaluate<number>('scrollY')) - place)).toBeLessThan(400)
  await page.getByRole('searchbox').fill(first)
  await page.getByText(/^1 session/).waitFor()
  expect(faults).toEqual([])
})
