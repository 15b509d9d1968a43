/** Files of the operator that batches name in their texts: `__colors__` is `colors.txt` in the folder of wildcards. */
import { readFile, realpath, stat } from 'node:fs/promises'
import { join, resolve, sep } from 'node:path'
import { type DarkroomError, invalidFields } from '../errors.ts'

const maxBytes = 1024 * 1024
const namePattern = /^[\p{L}\p{N} ._-]+(\/[\p{L}\p{N} ._-]+)*$/u

/**
 * The lines of a file that say something: no empty ones, and none that begins with `#`.
 * @param folder null where the operator has none
 * @throws DarkroomError `api.invalid` for a name that leads out of the folder, a file that is not there, is too large,
 * or says nothing
 */
export async function wildcardLines(folder: string | null, name: string, field: string): Promise<string[]> {
  const refuse = (why: string): DarkroomError =>
    invalidFields([{ field, message: `names the wildcard file ${JSON.stringify(name.slice(0, 200))}, ${why}` }])
  if (folder === null) throw refuse('but the operator has no folder of wildcards (DARKROOM_WILDCARDS)')
  if (!namePattern.test(name) || name.split('/').some((part) => /^\.+$/.test(part)))
    throw refuse('which must be a path inside the folder of wildcards, such as colors or animals/birds')
  const missing = 'which is not in the folder of wildcards'
  const [root, file] = await Promise.all([realpath(folder), realpath(join(resolve(folder), `${name}.txt`))]).catch(() => {
    throw refuse(missing)
  })
  // A link may lead anywhere; what it leads to is told to nobody.
  if (!file.startsWith(root.endsWith(sep) ? root : root + sep)) throw refuse(missing)
  const known = await stat(file)
  if (!known.isFile()) throw refuse(missing)
  if (known.size > maxBytes) throw refuse(`which has ${known.size} bytes, and ${maxBytes} are the most`)
  const lines = (await readFile(file, 'utf8')).split(/\r?\n/).map((line) => line.trim())
  const said = lines.filter((line) => line !== '' && !line.startsWith('#'))
  if (said.length === 0) throw refuse('which says nothing')
  return said
}
