/** The page: files that set-up has built from src/web, whose names change with their bytes. */
import { readFileSync } from 'node:fs'
import { extname, join } from 'node:path'
import { Hono } from 'hono'
import { root } from '../config.ts'
import { apiError } from '../errors.ts'
import type { AppEnv } from './context.ts'

/** As setup/page.mjs writes it. */
interface Built {
  script: string
  /** Scripts that it imports. */
  needed: string[]
  style: string
  /** All of them, and the scripts of the rooms. */
  files: string[]
}

const types: Record<string, string> = { '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8' }

const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; " +
  "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

const pagePaths = /^\/(?:$|page\/[\w.-]+$)/

/** Paths that hold nothing of a farm and so ask for no key: the page itself, and the way for a key in. */
export const mayComeKeyless = ({ path, method }: { path: string; method: string }): boolean =>
  (pagePaths.test(path) && method === 'GET') || (path === '/v1/login' && method === 'POST')

const html = ({ script, needed, style }: Built): string => `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>Darkroom</title>
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="/page/${style}">
    ${needed.map((name) => `<link rel="modulepreload" href="/page/${name}">`).join('\n    ')}
    <script type="module" src="/page/${script}"></script>
  </head>
  <body><div id="page"></div><noscript>The page needs JavaScript; the <a href="/docs">API</a> does not.</noscript></body>
</html>
`

export function pageRoutes(folder = join(root, 'web', 'dist')): Hono<AppEnv> {
  const built = readBuilt(folder)
  return new Hono<AppEnv>()
    .get('/', (c) => {
      if (!built) throw apiError('not_found', 'the page is not built', { remedy: 'Run `npm run setup`, then start the API again.' })
      return c.html(built.page, 200, { 'Content-Security-Policy': policy, 'Cache-Control': 'no-cache' })
    })
    .get('/page/:file', (c) => {
      const file = built?.files.get(c.req.param('file'))
      if (!file) return c.notFound()
      return c.body(new Uint8Array(file.bytes), 200, { 'Content-Type': file.type, 'Cache-Control': 'public, max-age=31536000, immutable' })
    })
}

/** Undefined where set-up has built none. */
function readBuilt(folder: string): { page: string; files: ReadonlyMap<string, { bytes: Buffer; type: string }> } | undefined {
  try {
    const built = JSON.parse(readFileSync(join(folder, 'page.json'), 'utf8')) as Built
    const file = (name: string) => [name, { bytes: readFileSync(join(folder, name)), type: types[extname(name)] ?? '' }] as const
    return { page: html(built), files: new Map(built.files.map(file)) }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
