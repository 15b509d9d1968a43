/**
 * The programs that tests start, built once for a run of the tests: each is one file, and what they share another. From
 * its sources a process of the product is some hundreds of files that go through a compiler, which costs more than all
 * that most tests do with it. Vitest calls this before the first test of a project, and what it returns after the last.
 */
import { rmSync } from 'node:fs'
import { mkdtemp, readFile, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { extname, join, sep } from 'node:path'
import { pathToFileURL } from 'node:url'
import { build, type Plugin } from 'esbuild'
import { ensurePage } from '../../setup/page.mjs'
import { speaker } from '../../setup/say.mjs'
import { root } from '../../src/config.ts'
import { builtFolder } from './program-file.ts'

const programs = [
  'src/main.ts',
  'test/support/api.ts',
  'test/support/worker.ts',
  'test/support/reserver.ts',
  'test/support/program.ts',
  'test/support/scribble.ts',
  'test/api/api_process.ts',
  'test/examples/module.ts',
]

/** They find files of their own beside their code, or are compiled for the machine. */
const apart = ['@bull-board/*', 'esbuild', 'fs-native-extensions', 'msgpackr-extract', 'pino', 'piscina', 'sharp', 'swagger-ui-dist', 'tsx']

/** A source goes on saying where it lies itself, for the threads, programs and folders that it names from there. */
const places: Plugin = {
  name: 'places',
  setup: (made) =>
    made.onLoad({ filter: /\.(ts|mjs)$/ }, async ({ path }) => {
      if (path.includes(`${sep}node_modules${sep}`)) return undefined
      const contents = (await readFile(path, 'utf8')).replaceAll('import.meta.url', JSON.stringify(pathToFileURL(path).href))
      return { contents, loader: extname(path) === '.ts' ? 'ts' : 'js' }
    }),
}

export default async function buildPrograms(): Promise<() => void> {
  // Another project of this run has had them built.
  if (process.env[builtFolder] !== undefined) return () => undefined
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-programs-'))
  const remove = (): void => rmSync(folder, { recursive: true, force: true })
  process.once('exit', remove)
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
  await build({
    entryPoints: programs.map((program) => join(root, program)),
    outdir: folder,
    outbase: root,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    external: apart,
    plugins: [places],
    // What it takes in of packages of the older kind asks for Node's own modules in their way.
    banner: { js: "import { createRequire as requireFrom } from 'node:module'\nconst require = requireFrom(import.meta.url)" },
    logLevel: 'error',
  })
  await ensurePage(root, speaker())
  process.env[builtFolder] = folder
  return remove
}
