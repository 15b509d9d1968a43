import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

/** Version of an installed package; asked of its file, because `exports` may hide its package.json. */
export function version(name: string): string {
  for (let folder = dirname(createRequire(import.meta.url).resolve(name)); ; folder = dirname(folder)) {
    const file = join(folder, 'package.json')
    const found = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as { name?: string; version?: string }) : {}
    if (found.name === name && found.version) return found.version
    if (folder === dirname(folder)) throw new Error(`${name} is not installed`)
  }
}
