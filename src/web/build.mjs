/**
 * Builds the page into a folder, which takes the place of what was there at once: one script and one style sheet, each
 * named by its bytes, and `page.json`, which names them and what they were made of.
 *
 *     node src/web/build.mjs FOLDER KEY
 */
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const [folder = '', key = ''] = process.argv.slice(2)
const own = dirname(fileURLToPath(import.meta.url))

mkdirSync(dirname(folder), { recursive: true })
const part = mkdtempSync(`${folder}-`)
const { metafile } = await build({
  entryPoints: [join(own, 'main.tsx')],
  outdir: part,
  entryNames: '[name]-[hash]',
  bundle: true,
  minify: true,
  metafile: true,
  format: 'esm',
  target: 'es2022',
  charset: 'utf8',
  legalComments: 'none',
  // The one beside this file is for the compiler that checks the types.
  tsconfigRaw: '{}',
  // Calls of `h` are shorter than those of the automatic runtime.
  jsx: 'transform',
  jsxFactory: 'h',
  jsxFragment: 'Fragment',
  inject: [join(own, 'jsx.ts')],
  logLevel: 'error',
})
const names = Object.keys(metafile.outputs).map((path) => basename(path))
const [script, style] = ['.js', '.css'].map((ending) => names.find((name) => name.endsWith(ending)))
writeFileSync(join(part, 'page.json'), JSON.stringify({ key, script, style }))
rmSync(folder, { recursive: true, force: true })
renameSync(part, folder)
