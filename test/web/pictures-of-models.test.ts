/** Models chosen by their pictures, and the pictures that an edit is shown, in a real browser. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { beforeAll, describe, expect, it } from 'vitest'
import { writePng } from '../../src/domains/postprocessing/png.ts'
import { startHarness, type Harness } from '../api/harness.ts'
import { beside, openTab, picture, stumbles } from '../support/browser.ts'
import { folders, writeFolder } from '../support/drawable-folders.ts'
import { writeSafetensors } from '../support/headers.ts'
import { eventually } from '../support/wait.ts'

const seen = beside(startHarness, (h) => h.stop())
let h: Harness
let browser: Browser

const grey = (value: number): Promise<Uint8Array> => writePng(new Uint8Array(96 * 96 * 3).fill(value), 96, 96, {})
const file = async (name: string, value: number) => ({ name, mimeType: 'image/png', buffer: Buffer.from(await grey(value)) })
const isShown = (page: Page, where: string): Promise<boolean> =>
  page
    .locator(where)
    .first()
    .evaluate((image) => image.complete && image.naturalWidth > 0)

beforeAll(async () => {
  ;({ started: h, browser } = seen)
  const [root = ''] = h.config.models
  writeFolder(join(root, 'klein'), { ...folders.klein, index: { is_distilled: true } })
  await mkdir(join(root, 'loras'), { recursive: true })
  const module = 'lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k'
  writeSafetensors(join(root, 'loras', 'paint.safetensors'), {
    [`${module}.lora_down.weight`]: ['F16', [8, 768]],
    [`${module}.lora_up.weight`]: ['F16', [640, 8]],
    [`${module}.alpha`]: ['F16', []],
  })
  await writeFile(join(root, 'loras', 'paint.png'), await grey(60))
  await writeFile(join(root, 'klein.preview.png'), await grey(90))
  await writeFile(join(root, 'darkroom-tiny.png'), await grey(200))
  await h.client.post('/v1/models/rescan')
  await eventually('klein draws', async () => (await h.client.get('/v1/models/klein')).json.status === 'usable')
})

describe('a model', () => {
  it.each(['light', 'dark'] as const)('is chosen by its picture, by pointer and keyboard (%s)', async (colorScheme) => {
    const { page, faults } = await openTab(browser, `${h.url}/#/draw`, { colorScheme })
    await page.getByRole('button', { name: 'Model: darkroom-tiny' }).click()
    const list = page.getByRole('dialog', { name: 'Model' })
    await list.getByRole('button', { name: 'klein' }).waitFor()
    await expect.poll(() => isShown(page, '.picker img'), { timeout: 20_000 }).toBe(true)
    expect(await stumbles(page)).toEqual([])
    await picture(page, `picker-${colorScheme}`)
    await page.keyboard.press('Escape')
    await list.waitFor({ state: 'hidden' })
    await page.getByRole('button', { name: 'Model: darkroom-tiny' }).press('Enter')
    await list.getByRole('button', { name: 'klein' }).press('Enter')
    await list.waitFor({ state: 'hidden' })
    await page.getByRole('button', { name: 'Model: klein' }).waitFor()
    await expect.poll(() => isShown(page, '.picked img'), { timeout: 20_000 }).toBe(true)
    await page.goto(`${h.url}/#/models`)
    await expect.poll(() => isShown(page, '.rows summary img'), { timeout: 20_000 }).toBe(true)
    await picture(page, `models-${colorScheme}`)
    expect(faults).toEqual([])
  })
})

describe('a LoRA', () => {
  it('is added by its picture, weighed and taken out', async () => {
    const { page, faults } = await openTab(browser, `${h.url}/#/draw`)
    await page.getByRole('button', { name: 'Add a LoRA' }).click()
    await page.getByRole('dialog', { name: 'Add a LoRA' }).getByRole('button', { name: 'paint' }).click()
    await page.getByLabel('Weight of paint').fill('0.5')
    await expect.poll(() => isShown(page, '.adapters .row img'), { timeout: 20_000 }).toBe(true)
    expect(await page.evaluate<unknown>("JSON.parse(sessionStorage.getItem('darkroom.form')).adapters")).toEqual([
      { model: 'paint', weight: 0.5 },
    ])
    await picture(page, 'lora')
    await page.getByRole('button', { name: 'Without paint' }).click()
    await page.getByRole('button', { name: 'Add a LoRA' }).waitFor()
    expect(faults).toEqual([])
  })
})

describe('an edit', () => {
  it('is shown pictures where its model sees any: several at once, put in order, taken out, sent in that order', async () => {
    const phone = { colorScheme: 'dark', viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true } as const
    const { page, faults } = await openTab(browser, `${h.url}/#/draw`, phone)
    const choose = async (now: string, then: string): Promise<void> => {
      await page.getByRole('button', { name: `Model: ${now}` }).click()
      await page.getByRole('dialog', { name: 'Model' }).getByRole('button', { name: then }).click()
      await page.getByRole('button', { name: `Model: ${then}` }).waitFor()
    }
    await page.getByRole('button', { name: 'Model: darkroom-tiny' }).waitFor()
    expect(await page.locator('.references').count()).toBe(0)
    await choose('darkroom-tiny', 'klein')
    const drop = page.locator('.references input[type=file]')
    await drop.setInputFiles([await file('a.png', 10), await file('b.png', 20), await file('c.png', 30)])
    await page.getByRole('img', { name: 'Picture 3' }).waitFor()
    // The same picture again is shown once.
    await drop.setInputFiles([await file('again.png', 20)])
    await page.getByRole('button', { name: 'Picture 3 earlier' }).click()
    await page.getByRole('button', { name: 'Without picture 1' }).click()
    await page.getByRole('img', { name: 'Picture 3' }).waitFor({ state: 'detached' })
    await drop.setInputFiles([await file('d.png', 40)])
    await page.getByRole('img', { name: 'Picture 3' }).waitFor()
    expect(await page.getByRole('button', { name: 'Picture 3 later' }).isDisabled()).toBe(true)
    expect(await stumbles(page)).toEqual([])
    expect(await page.evaluate<boolean>('document.documentElement.scrollWidth > innerWidth')).toBe(false)
    await page.locator('.references').scrollIntoViewIfNeeded()
    await picture(page, 'references')
    await page.getByRole('textbox', { name: 'Prompt' }).fill('the same at night')
    await page.getByRole('button', { name: 'Draw', exact: true }).click()
    const ids: string[] = []
    for (const value of [30, 20, 40]) {
      const body = Buffer.from(await grey(value))
      ids.push((await h.client.request('POST', '/v1/artifacts', { headers: { 'Content-Type': 'image/png' }, body })).json.sha256 as string)
    }
    const sent = await eventually('the session', async () => {
      const { sessions } = (await h.client.get('/v1/sessions?workflow=image-generation&limit=1')).json
      return sessions[0]?.input as { model: unknown; references: { sha256: string }[] } | undefined
    })
    expect(sent.references.map(({ sha256 }) => sha256)).toEqual(ids)
    expect(faults).toEqual([])
  })

  it('shows what the API says of them, and what another model left', async () => {
    const { page, faults } = await openTab(browser, `${h.url}/#/draw`)
    await page.getByRole('button', { name: 'Model: darkroom-tiny' }).click()
    await page.getByRole('dialog', { name: 'Model' }).getByRole('button', { name: 'klein' }).click()
    await page.locator('.references input[type=file]').setInputFiles([await file('a.png', 50)])
    await page.getByRole('img', { name: 'Picture 1' }).waitFor()
    await page.getByRole('button', { name: 'Model: klein' }).click()
    await page.getByRole('dialog', { name: 'Model' }).getByRole('button', { name: 'darkroom-tiny' }).click()
    await page.getByRole('textbox', { name: 'Prompt' }).fill('x')
    await page.getByRole('button', { name: 'Draw', exact: true }).click()
    await page.getByText(/must be left out for darkroom-tiny, which sees no pictures/).waitFor()
    await page.getByRole('button', { name: 'Without picture 1' }).click()
    await page.locator('.references').waitFor({ state: 'detached' })
    expect(faults).toEqual([])
  })
})
