/**
 * Takes configurations and vocabularies out of a diffusers folder, so that single files of its family find them. No
 * weights are copied, and nothing that is not what its name says.
 */
import { createHash, randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { mkdir, open, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { importedConfigs, isConfigFile } from './configs.ts'
import { modelError } from './errors.ts'
import { hubName, isPart } from './folder-names.ts'
import { HeaderFault, sizeText } from './header.ts'
import { parseJsonObject } from './json-file.ts'

/** Most bytes of one file: the largest vocabularies have some 33 MB. */
const maxBytes = 64 * 1024 * 1024
/** Most files of a part; a tokenizer has seven. */
const maxFiles = 32

/** Published files by their SHA-256, as far as they have been compared. */
const published: Readonly<Record<string, string>> = {
  '9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a': 'the merges of CLIP',
}

export interface Imported {
  /** Folder of the set. */
  path: string
  parts: { name: string; files: string[] }[]
  /** What was found to be a file that was published. */
  known: { file: string; is: string }[]
  /** What was left, and why. */
  left: { file: string; why: string }[]
}

/**
 * Copies what `folder`, laid out as diffusers does it, says beside its weights, into a set of its own in the data
 * folder; one of the same name is replaced as a whole.
 * @throws DarkroomError `model.unusable` when there is nothing to take, or something of it is not what its name says
 */
export async function importConfigs(folder: string, data: string, name = nameOf(folder)): Promise<Imported> {
  const set = join(importedConfigs(data), name)
  if (!/^[\w.-]{1,100}$/.test(name) || name.startsWith('.'))
    throw refused(`${JSON.stringify(name)} is no name of a set`, 'Give one of letters, digits, dots and dashes with --name.')
  const entries = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    throw refused(`${folder} cannot be read: ${error.code ?? error.message}`, 'Name a diffusers folder.')
  })
  const taken = new Map<string, Buffer>()
  const parts: Imported['parts'] = []
  const left: Imported['left'] = []
  for (const part of entries.filter(isPart).toSorted()) {
    const files = (await readdir(join(folder, part)).catch((): string[] => [])).toSorted()
    const wanted = files.filter(isConfigFile)
    if (wanted.length > maxFiles) throw refused(`${join(folder, part)} has ${wanted.length} files; a part has at most ${maxFiles}`)
    for (const file of wanted) taken.set(join(part, file), await checked(join(folder, part, file), join(part, file)))
    left.push(...files.filter((file) => !isConfigFile(file)).map((file) => ({ file: join(part, file), why: 'it is no configuration' })))
    if (wanted.length > 0) parts.push({ name: part, files: wanted })
  }
  if (parts.length === 0)
    throw refused(
      `${folder} has no part of a pipeline with a configuration`,
      'Name a folder with tokenizer/, text_encoder/, vae/ and the like.',
    )
  for (const file of ['model_index.json', 'manifest.json'])
    if (entries.includes(file)) taken.set(file, await checked(join(folder, file), file))
  await put(set, taken)
  const known = [...taken].flatMap(([file, content]) => {
    const is = published[createHash('sha256').update(content).digest('hex')]
    return is === undefined ? [] : [{ file, is }]
  })
  return { path: set, parts, known, left }
}

/** The content of a file that is what its ending says. */
async function checked(path: string, file: string): Promise<Buffer> {
  // Without this flag the open of a named pipe would wait for who writes into it.
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((error: NodeJS.ErrnoException) => {
    throw refused(`${file} cannot be read: ${error.code ?? error.message}`)
  })
  try {
    const stats = await handle.stat()
    if (!stats.isFile()) throw refused(`${file} is no regular file`)
    if (stats.size === 0 || stats.size > maxBytes)
      throw refused(`${file} has ${sizeText(stats.size)}; such a file has up to ${sizeText(maxBytes)} and is not empty`)
    const content = await handle.readFile()
    checkContent(content, file)
    return content
  } finally {
    await handle.close()
  }
}

function checkContent(content: Buffer, file: string): void {
  if (content.toString('latin1', 0, 23) === 'version https://git-lfs')
    throw refused(`${file} is a git-lfs pointer, not the file itself`, 'Run `git lfs pull` in that folder.')
  // A vocabulary of SentencePiece is a protobuf whose first field is a list.
  if (file.endsWith('.model')) {
    if (content[0] !== 0x0a) throw refused(`${file} is no vocabulary of SentencePiece`)
    return
  }
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(content)
  } catch {
    throw refused(`${file} is no text in UTF-8`)
  }
  if (text.includes('\0')) throw refused(`${file} is no text: it holds NUL`)
  if (!file.endsWith('.json')) return
  try {
    parseJsonObject(text, file)
  } catch (error) {
    throw error instanceof HeaderFault ? refused(error.message.replace(/\.$/, '')) : error
  }
}

/** Whole or not at all. */
async function put(set: string, taken: ReadonlyMap<string, Buffer>): Promise<void> {
  const part = join(dirname(set), `.${basename(set)}-${randomUUID()}`)
  // The data folder too, where it is not there yet: nobody else may read it.
  await mkdir(dirname(set), { recursive: true, mode: 0o700 })
  try {
    for (const [file, content] of taken) {
      await mkdir(dirname(join(part, file)), { recursive: true })
      await writeFile(join(part, file), content)
    }
    await rm(set, { recursive: true, force: true })
    await rename(part, set)
  } finally {
    await rm(part, { recursive: true, force: true })
  }
}

/** `org--name` of a snapshot in a hub cache, else the folder's own name. */
function nameOf(folder: string): string {
  const path = resolve(folder)
  const hub = hubName(basename(dirname(dirname(path))))
  return (hub ?? basename(path)).replaceAll(/[^\w.-]+/g, '--')
}

const refused = (why: string, remedy = 'Fetch the file again, or name another folder.') =>
  modelError('unusable', `its configurations were not imported: ${why}`, { field: 'FOLDER', remedy })
