/** A real Chromium that looks at the page, and what a test may do with it. */
import { readFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core'
import { afterAll, beforeAll } from 'vitest'
import { ensureChromium } from '../../setup/chromium.mjs'
import { patienceMs } from './wait.ts'

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

/** What a browser said that no page of ours may make it say: errors, refusals of the content policy. */
export interface Tab {
  page: Page
  faults: string[]
}

/**
 * What a test file looks at, with a browser beside it: both are started before its tests and gone after them.
 * @param stop ends what `start` has begun
 */
export function beside<T>(
  start: () => Promise<T>,
  stop: (started: T) => PromiseLike<unknown>,
  slowMs = 60_000,
): { readonly started: T; readonly browser: Browser } {
  let started: T | undefined
  let browser: Browser | undefined
  beforeAll(async () => {
    ;[started, browser] = await Promise.all([start(), openBrowser()])
  }, slowMs)
  afterAll(async () => {
    await browser?.close()
    if (started !== undefined) await stop(started)
  }, slowMs)
  const there = <V>(value: V | undefined): V => {
    if (value === undefined) throw new Error('it has not begun yet')
    return value
  }
  return {
    get started() {
      return there(started)
    },
    get browser() {
      return there(browser)
    },
  }
}

export const openBrowser = async (): Promise<Browser> => chromium.launch(await ensureChromium())

/** A tab of its own: nothing is shared with others. */
export async function openTab(browser: Browser, url: string, options: BrowserContextOptions = {}): Promise<Tab> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: 'reduce', ...options })
  context.setDefaultTimeout(patienceMs)
  const page = await context.newPage()
  const faults: string[] = []
  page.on('pageerror', (error) => faults.push(error.message))
  page.on('console', (message) => {
    // What the API refuses, or does not answer, the browser tells too.
    if (message.type() === 'error' && !/Failed to load resource|WebSocket connection/.test(message.text())) faults.push(message.text())
  })
  await page.goto(url)
  return { page, faults }
}

interface AxeRun {
  violations: { id: string; nodes: { html: string; failureSummary: string }[] }[]
}

/** What a person who cannot see or point would stumble over, a line each. */
export async function stumbles(page: Page): Promise<string[]> {
  await page.evaluate(axe)
  const { violations } = await page.evaluate(async () => {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what the line before has put there
    const runner = (globalThis as unknown as { axe: { run(): Promise<AxeRun> } }).axe
    return runner.run()
  })
  return violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 160)} ${failureSummary}`))
}

/** Keeps how a page looks, where `SCREENSHOTS` names a folder. */
export async function picture(page: Page, name: string): Promise<void> {
  const folder = process.env['SCREENSHOTS']
  if (!folder) return
  await mkdir(folder, { recursive: true })
  await page.screenshot({ path: join(folder, `${name}.png`) })
}
