/**
 * Makes docs/page.png: the light table of a farm that has drawn some pictures and is at one more.
 *
 *     node --import tsx test/support/page-picture.ts
 */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import sharp from 'sharp'
import { ensurePage } from '../../setup/page.mjs'
import { speaker } from '../../setup/say.mjs'
import { root } from '../../src/config.ts'
import { openBrowser, openTab } from './browser.ts'
import buildPrograms from './built.ts'
import { startFarm } from './farm.ts'

const mostBytes = 300_000
const slow = 600_000
const size = { width: 128, height: 128, steps: 20 }
const prompts = [
  'a large green star on black',
  'a red circle left of a blue square on yellow',
  'two orange circles on purple',
  'a white triangle on blue',
  'a small red circle on white',
  'a yellow square above a green circle on grey',
  'a purple star on yellow',
  'a blue triangle on white',
  'a green cross on orange',
  'a blue ring on black',
  'a yellow star left of a red square on green',
]

await ensurePage(root, speaker())
const remove = await buildPrograms()
await using farm = await startFarm({ workers: 1, real: true })
const ids: string[] = []
for (const [seed, prompt] of prompts.entries()) ids.push(await farm.submit({ prompt, seed, ...size }))
for (const id of ids) await farm.until(id, 'succeeded', slow)
const paused = await farm.submit({ prompt: 'an orange triangle on blue', seed: 31, ...size, steps: 60 })
await farm.untilCall(paused, 25, slow)
await farm.control(paused, 'pause')
await farm.until(paused, 'paused', slow)
const last = await farm.submit({ prompt: 'a red star above a yellow circle on black', seed: 5, ...size, steps: 200 })
const browser = await openBrowser()
const { page } = await openTab(browser, farm.client.url, { colorScheme: 'dark', viewport: { width: 1360, height: 860 } })
await page.locator('.card.running img.preview').waitFor({ timeout: slow })
await farm.untilCall(last, 60, slow)
const shot = await page.screenshot()
await browser.close()
for (const id of [paused, last]) await farm.control(id, 'cancel')
const file = join(root, 'docs', 'page.png')
await sharp(shot).png({ palette: true, quality: 90, effort: 10 }).toFile(file)
if (statSync(file).size > mostBytes) throw new Error(`${file} has ${statSync(file).size} bytes; ${mostBytes} are the most`)
remove()
