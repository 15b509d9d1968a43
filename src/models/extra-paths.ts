/** ComfyUI's `extra_model_paths.yaml`: further folders, each of one kind. */
import { dirname, resolve } from 'node:path'
import { parse } from 'yaml'
import { z } from 'zod'
import { expandUser } from '../../host/home.mjs'
import { kindOfFolder } from './folder-names.ts'
import type { Look } from './look.ts'
import { readSmall } from './read-small.ts'
import type { Kind } from './verdict.ts'

export const extraPathsFile = 'extra_model_paths.yaml'

/** Most folders of one file; each is asked for several times a second while it is not there. */
const maxFolders = 256

const Section = z.record(z.string(), z.unknown())
const Sections = z.record(z.string(), Section.nullable()).nullable()

/** A leading `~` and variables, as ComfyUI's `os.path.expandvars(os.path.expanduser(…))`. */
const expanded = (path: string): string =>
  expandUser(path).replaceAll(
    /\$(\w+)|\$\{(\w+)\}/g,
    (whole, plain?: string, braced?: string) => process.env[plain ?? braced ?? ''] ?? whole,
  )

/**
 * The folders that a file names, with their kinds; ComfyUI: `utils/extra_config.py`. A section has `base_path`, which
 * is reckoned from the file's own folder, and by kind one folder a line. Folders of a kind that Darkroom does not know,
 * such as `custom_nodes`, are left out.
 * @throws Error when the file cannot be read, or is no such file
 */
export async function readExtraPaths(file: string, look: Look): Promise<{ path: string; kind: Kind }[]> {
  const sections = Sections.safeParse(
    parse((await look(file, () => readSmall(file))).toString('utf8'), { maxAliasCount: 100, logLevel: 'error' }),
  )
  if (!sections.success) throw new Error('it is no extra_model_paths.yaml: sections of folders by kind are expected')
  const found: { path: string; kind: Kind }[] = []
  for (const section of Object.values(sections.data ?? {})) {
    if (!section) continue
    const { base_path: given, is_default: _order, ...kinds } = section
    const base = resolve(dirname(file), typeof given === 'string' ? expanded(given) : '.')
    for (const [name, lines] of Object.entries(kinds)) {
      const kind = kindOfFolder(name)
      if (!kind || typeof lines !== 'string') continue
      const paths = lines.split('\n').map((line) => line.trim())
      for (const path of paths.filter(Boolean)) {
        if (found.length === maxFolders) throw new Error(`it names more than ${maxFolders} folders`)
        found.push({ path: resolve(base, expanded(path)), kind })
      }
    }
  }
  return found
}
