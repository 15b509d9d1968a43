/** A workflow's module as one script: it and the files of the folder that it imports. */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { dirname, isAbsolute, join, relative, resolve } from 'node:path'
import type { Message, Plugin } from 'esbuild'
import { workflowError } from '../../errors.ts'

export interface Bundle {
  /** Path of the module. */
  file: string
  /** CommonJS: `provided` alone is required by it. */
  code: string
  /** Of the content of all files in it, whatever they are called: hex. */
  sha256: string
}

/** What a module may import besides files of its folder. */
export const provided = ['darkroom/workflows', 'xstate', 'zod'] as const

const ownFilesOnly = (folder: string): Plugin => ({
  name: 'own files only',
  setup: (made) =>
    made.onResolve({ filter: /.*/ }, ({ kind, path, resolveDir }) => {
      if (kind === 'entry-point') return undefined
      if ((provided as readonly string[]).includes(path)) return { path, external: true }
      const isRelative = path.startsWith('./') || path.startsWith('../')
      if (isRelative && isBelow(folder, resolve(resolveDir, path))) return undefined
      return { errors: [{ text: `it imports ${path}: a workflow's module may import ${provided.join(', ')} and files of its folder` }] }
    }),
})

const isBelow = (folder: string, path: string): boolean => {
  const way = relative(folder, path)
  return way !== '..' && !way.startsWith('../') && !isAbsolute(way)
}

/** @throws DarkroomError `workflow.unloadable` with the first fault and its line */
export async function bundle(file: string): Promise<Bundle> {
  // Loaded here: farms without workflows of their own need no compiler.
  const { build } = await import('esbuild')
  const folder = dirname(file)
  try {
    const made = await build({
      entryPoints: [file],
      absWorkingDir: folder,
      bundle: true,
      write: false,
      metafile: true,
      format: 'cjs',
      platform: 'neutral',
      target: 'node20',
      tsconfigRaw: '{}',
      logLevel: 'silent',
      plugins: [ownFilesOnly(folder)],
    })
    const files = Object.keys(made.metafile.inputs)
    const hashes = await Promise.all(files.map(async (name) => hashOf(await readFile(join(folder, name)))))
    return { file, code: made.outputFiles[0]?.text ?? '', sha256: hashOf(hashes.toSorted().join('\n')) }
  } catch (error) {
    const [first] = (error as { errors?: Message[] }).errors ?? []
    const place = first?.location ? `line ${first.location.line}: ` : ''
    throw workflowError('unloadable', first ? `${place}${first.text}` : (error as Error).message, { cause: error })
  }
}

const hashOf = (content: string | Uint8Array): string => createHash('sha256').update(content).digest('hex')
