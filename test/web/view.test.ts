/** The page's own components and signals, in a real browser: what they show is what Preact shows. */
import { join } from 'node:path'
import { build } from 'esbuild'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import { openBrowser, openTab } from '../support/browser.ts'

let browser: Browser
let script: string

beforeAll(async () => {
  const contents = `
    import * as view from './view.ts'
    import * as signals from './signals.ts'
    import * as preact from 'preact'
    Object.assign(globalThis, { ...view, ...signals, preact, turn: () => new Promise((resolve) => setTimeout(resolve)) })
  `
  const stdin = { contents, resolveDir: join(root, 'src', 'web') }
  const bundled = await build({ stdin, bundle: true, write: false, format: 'iife' })
  script = bundled.outputFiles[0]?.text ?? ''
  browser = await openBrowser()
})
afterAll(() => browser.close())

async function blank(): Promise<{ page: Page; faults: string[] }> {
  const tab = await openTab(browser, 'about:blank')
  await tab.page.addScriptTag({ content: script })
  return tab
}

describe('a view', () => {
  it('shows what Preact shows, however a tree changes, and keeps the elements of keys', async () => {
    const { page, faults } = await blank()
    const differing = await page.evaluate<string[]>(`(async () => {
      let state = 1
      const random = (below) => (state = (state * 48271) % 2147483647) % below
      const pick = (...of) => of[random(of.length)]
      const tree = (depth) => {
        const kind = depth > 3 ? pick('text', 'hole') : pick('element', 'element', 'list', 'part', 'text', 'hole')
        if (kind === 'text') return String(random(3))
        if (kind === 'hole') return pick(null, false, undefined)
        const kids = Array.from({ length: random(5) }, () => tree(depth + 1))
        if (kind === 'list') {
          const keys = Array.from({ length: 6 }, (_, i) => i).filter(() => random(2)).sort(() => random(3) - 1)
          return { list: keys.map((key) => ({ tag: pick('p', 'i'), key, attributes: {}, kids: [tree(depth + 2)] })) }
        }
        if (kind === 'part') return { part: kids }
        return { tag: pick('p', 'i', 'svg'), attributes: { class: pick('a', undefined), title: pick('x', null, 'y'), 'aria-busy': pick(true, false) }, kids }
      }
      const Part = ({ children }) => children
      const made = (h, told) => {
        if (told?.list) return told.list.map((each) => made(h, each))
        if (told?.part) return h(Part, null, ...told.part.map((kid) => made(h, kid)))
        return told?.tag ? h(told.tag, { key: told.key, ...told.attributes }, ...told.kids.map((kid) => made(h, kid))) : told
      }
      // Preact leaves an empty title where there was one; the order of attributes means nothing.
      const attributesOf = (element) => [...element.attributes].map(({ name, value }) => name + '=' + value).filter((each) => each !== 'title=').sort()
      const said = (node) => node.nodeType === 3 ? node.data : '<' + [node.localName, node.namespaceURI.at(-1), ...attributesOf(node)].join(' ') + '>' + [...node.childNodes].map(said).join('|')
      const [one, two] = [document.createElement('div'), document.createElement('div')]
      const told = signal(null)
      render(h(() => h('section', null, made(h, told.value))), one)
      const differing = []
      for (let i = 0; i < 400; i++) {
        const next = { tag: 'div', attributes: {}, kids: Array.from({ length: 4 }, () => tree(0)) }
        told.value = next
        await Promise.resolve()
        await Promise.resolve()
        preact.render(preact.h('section', null, made(preact.h, next)), two)
        if (said(one) !== said(two)) differing.push(i + ': ' + said(one) + ' / ' + said(two))
      }
      const keyed = signal(['a', 'b', 'c'])
      const list = document.createElement('div')
      render(h(() => keyed.value.map((key) => h('b', { key }, key))), list)
      const known = new Map([...list.children].map((each) => [each.textContent, each]))
      for (const order of ['cab', 'bxa', 'abx', 'b', 'acb']) {
        keyed.value = [...order]
        await turn()
        if (list.textContent !== order) differing.push(list.textContent)
        const b = [...list.children].find((each) => each.textContent === 'b')
        if (b !== known.get('b')) differing.push('another b')
      }
      return differing.slice(0, 3)
    })()`)
    expect(differing).toEqual([])
    expect(faults).toEqual([])
  })

  it('leaves what somebody has selected, where the text is the same', async () => {
    const { page } = await blank()
    const seen = await page.evaluate<unknown>(`(async () => {
      const count = signal(0)
      render(h(() => h('p', { title: count.value }, 'a text')), document.body)
      getSelection().setBaseAndExtent(document.querySelector('p').firstChild, 0, document.querySelector('p').firstChild, 4)
      count.value = 1
      await turn()
      return [document.querySelector('p').title, getSelection().toString()]
    })()`)
    expect(seen).toEqual(['1', 'a te'])
  })

  it('gives the focus back to what it moves, and leaves what somebody writes meanwhile', async () => {
    const { page } = await blank()
    const seen = await page.evaluate<unknown>(`(async () => {
      const order = signal(['a', 'b', 'c'])
      render(h(() => h('form', null, order.value.map((key) => h('input', { key, id: key, defaultValue: key })))), document.body)
      const [a] = document.querySelectorAll('input')
      a.focus()
      a.value = 'written'
      order.value = ['b', 'c', 'a']
      await turn()
      return [document.activeElement.id, a.value, [...document.querySelectorAll('input')].map(({ id }) => id).join('')]
    })()`)
    expect(seen).toEqual(['a', 'written', 'bca'])
  })

  it('runs a component again only when something is another that it has read, parents first, and ends what it began', async () => {
    const { page } = await blank()
    const seen = await page.evaluate<unknown>(`(async () => {
      const [name, count, isShown] = [signal('x'), signal(0), signal(true)]
      const isEven = computed(() => (log.push('even'), count.value % 2 === 0))
      const log = []
      const Child = ({ of }) => {
        useEffect(() => (log.push('begins ' + of), () => log.push('ends ' + of)), [of])
        log.push('child ' + name.value)
        return name.value
      }
      const Parent = () => (log.push('parent'), isShown.value && h('p', null, isEven.value ? 'even' : 'odd', h(Child, { of: 1 })))
      render(h(Parent), document.body)
      const told = []
      const after = async (change) => { log.length = 0; change(); await turn(); told.push(log.join()) }
      told.push(log.join())
      await after(() => (name.value = 'y'))
      await after(() => (count.value = 2))
      await after(() => (count.value = 3))
      await after(() => { name.value = 'z'; isShown.value = false })
      await after(() => (name.value = 'nobody reads it'))
      return told
    })()`)
    expect(seen).toEqual(['parent,even,child x,begins 1', 'child y', 'even', 'even,parent', 'parent,ends 1', ''])
  })
})
