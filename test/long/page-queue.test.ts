/** The rooms of a farm at work: a queue that is moved by pointer and keyboard and paused; devices as they were. */
import { expect, it } from 'vitest'
import type { Queue } from '../../src/client/index.ts'
import { beside, openTab, picture, stumbles } from '../support/browser.ts'
import { startFarm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'

const seen = beside(
  () => startFarm({ workers: 1, fake: ['--call-ms', '5'] }),
  (farm) => farm[Symbol.asyncDispose](),
)

it('a queue is reordered by dragging and by keys, paused and resumed, and draws in the order that it shows', async () => {
  const { started: farm, browser } = seen
  const open = await farm.gate(1, 3)
  const running = await farm.submit({ seed: 1 })
  await farm.untilCall(running, 3)
  const queue = async (): Promise<string[]> => ((await farm.client.get('/v1/queue')).json as Queue).sessions.map(({ session }) => session)
  const ids: string[] = []
  for (const [seed, prompt] of [
    [2, 'next'],
    [3, 'one'],
    [4, 'two'],
    [5, 'three'],
    [6, 'four'],
  ] as const) {
    ids.push(await farm.submit({ seed, prompt }))
    await eventually(`${prompt} waits`, async () => (await queue()).length === Math.max(0, ids.length - 1))
  }
  const [, one = '', two = '', three = '', four = ''] = ids
  const { page, faults } = await openTab(browser, `${farm.client.url}/#/queue`)
  const row = (name: string) => page.locator('.line li').filter({ hasText: name })
  const isShown = (...names: string[]): Promise<true> =>
    eventually(
      `the page shows ${names.join()}`,
      async () => (await page.locator('.line .name').allInnerTexts()).join() === names.join() || undefined,
    )
  await isShown('one', 'two', 'three', 'four')
  expect(await stumbles(page)).toEqual([])

  await row('four').dragTo(row('two'))
  await isShown('one', 'four', 'two', 'three')
  await page.getByRole('button', { name: 'Move three' }).focus()
  await page.keyboard.press('ArrowUp')
  await isShown('one', 'four', 'three', 'two')
  // The focus goes with it, and where it stands is told.
  await page.getByText('three is now 3 of 4').waitFor({ state: 'attached' })
  await page.keyboard.press('Home')
  await isShown('three', 'one', 'four', 'two')
  await page.keyboard.press('ArrowDown')
  await isShown('one', 'three', 'four', 'two')
  await page.keyboard.press('End')
  await isShown('one', 'four', 'two', 'three')
  await expect.poll(queue).toEqual([one, four, two, three])
  await picture(page, 'queue')

  await page.getByRole('button', { name: 'Pause the queue' }).click()
  await page.getByText(/^The queue is paused/).waitFor()
  await page
    .getByText(/^the queue is paused/)
    .first()
    .waitFor()
  await page.getByRole('button', { name: 'Resume the queue' }).click()
  await page.getByRole('link', { name: 'Bull Board' }).waitFor()
  await open()
  for (const id of [running, ...ids]) await farm.pictures(id)
  const at = async (id: string): Promise<number> => (await farm.event(id, 'step.started', 'inference.encode')).at
  const times = await Promise.all([one, four, two, three].map(at))
  expect(times).toEqual(times.toSorted((a, b) => a - b))
  await page.getByText('Nobody waits for a device.').waitFor()

  await page.getByRole('link', { name: 'Devices' }).click()
  await page.getByRole('img', { name: /^memory over the last 1 h/ }).waitFor()
  const { json: devices } = await farm.client.get('/v1/devices')
  const { samples, everyS } = (await farm.client.get(`/v1/devices/${devices.devices[0].id}/history`)).json
  expect(everyS).toBe(60)
  expect(samples[0]).toMatchObject({ usedBytes: expect.any(Number) as number, temperature: null, power: null })
  expect(faults).toEqual([])
}, 120_000)
