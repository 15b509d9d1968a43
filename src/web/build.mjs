/**
 * Builds the page into a folder, which takes the place of what was there at once: a script, those of the rooms behind
 * the first, and one style sheet, each named by its bytes; and `page.json`, which names them and what they were made
 * of.
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
  chunkNames: 'room-[hash]',
  bundle: true,
  splitting: true,
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
const outputs = Object.entries(metafile.outputs).map(([path, output]) => ({ name: basename(path), ...output }))
const [script, style] = ['.js', '.css'].map((ending) => outputs.find(({ name }) => name.startsWith('main-') && name.endsWith(ending)))
/** What the first room cannot do without. @type {Set<string>} */
const needed = new Set()
/** @param {string | undefined} from */
function need(from) {
  const imports = outputs.find(({ name }) => name === from)?.imports ?? []
  for (const { kind, path } of imports) {
    if (kind !== 'import-statement' || needed.has(basename(path))) continue
    needed.add(basename(path))
    need(basename(path))
  }
}
need(script?.name)
const page = { key, script: script?.name, needed: [...needed], style: style?.name, files: outputs.map(({ name }) => name) }
writeFileSync(join(part, 'page.json'), JSON.stringify(page))
rmSync(folder, { recursive: true, force: true })
renameSync(part, folder)
