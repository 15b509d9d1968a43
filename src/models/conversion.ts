/** From a pickle to safetensors: which file is made of which, and when it is believed. */
import { randomBytes } from 'node:crypto'
import { access, constants, link, lstat, readdir, rm, stat } from 'node:fs/promises'
import { basename, dirname, extname, join } from 'node:path'
import type { Entry } from './entry.ts'
import { modelError } from './errors.ts'
import { formatOf, inspectFile } from './inspect.ts'
import { hostId } from './roots.ts'
import { asSafetensors } from './weights.ts'

/** What was made. */
export interface Conversion {
  path: string
  bytes: number
  tensors: number
  /** Entries of the pickle that are no tensors, the first of them. */
  skipped: string[]
}

/** A part of another host that nobody has written to for so long is left over, ms. */
const leftOverMs = 3_600_000
/** It tells whose it is, so that one of a process that was killed can be known. */
const partOf = (target: string): string =>
  join(dirname(target), `.${basename(target)}.${hostId()}-${process.pid}-${randomBytes(4).toString('hex')}.part`)

/** A pickle, and the file that is made of it: beside it, by its name. */
export interface Converting {
  source: string
  target: string
}

type Convertible = Pick<Entry, 'path' | 'real' | 'isFolder' | 'files' | 'verdict'>

/**
 * What is to be converted of a model: a single file, or those of a folder's pickles that a picture needs and that were
 * not converted before.
 * @throws DarkroomError `model.unusable` when it is no pickle that can be converted, `model.exists`,
 * `model.not_converted` when its folder cannot be written to
 */
export async function targetsOf(entry: Convertible): Promise<Converting[]> {
  const { path, isFolder, verdict } = entry
  const field = 'input.model'
  if (verdict.reason?.code !== 'pickle')
    throw modelError('unusable', `${path} is no pickle: it needs no conversion`, {
      field,
      remedy: 'Use it as it is, or see why not in its status.',
    })
  const targets = isFolder ? await inFolder(entry) : [await beside(entry)]
  for (const folder of new Set(targets.map(({ target }) => dirname(target))))
    await access(folder, constants.W_OK).catch((error: unknown) => {
      const remedy = `Give the user of Darkroom the right to write into ${folder}.`
      throw modelError('not_converted', `${folder} cannot be written to`, { field, remedy, cause: error })
    })
  return targets
}

async function beside({ path, real }: Convertible): Promise<Converting> {
  const field = 'input.model'
  if (formatOf(path) === 'safetensors') {
    const remedy = 'Give it the ending .ckpt, then convert it under its new name.'
    throw modelError('unusable', `${path} is a pickle that is called safetensors`, { field, remedy })
  }
  const target = `${path.slice(0, path.length - extname(path).length)}.safetensors`
  if (await isThere(target)) throw modelError('exists', `${target} is there already`, { field })
  return { source: real, target }
}

/** Parts whose weights a picture is drawn with; `.` where the folder itself is one. */
const drawnWith = /^(\.|(unet|transformer|vae|text_encoder)(_\d)?)$/

/** Of each part the variant without a name, else the first; what has been made before a kill stays. */
async function inFolder({ path, real, files }: Convertible): Promise<Converting[]> {
  const parts = new Map<string, { variant: string; file: string; name: string }[]>()
  for (const { path: file } of files) {
    const made = asSafetensors(basename(file))
    if (made && drawnWith.test(dirname(file))) parts.set(dirname(file), [...(parts.get(dirname(file)) ?? []), { ...made, file }])
  }
  const targets: Converting[] = []
  for (const [part, pickles] of parts) {
    const [first] = pickles.map(({ variant }) => variant).toSorted()
    for (const { file, name, variant } of pickles) {
      const target = join(path, part, name)
      if (variant === first && !(await isThere(target))) targets.push({ source: join(real, file), target })
    }
  }
  if (targets.length > 0) return targets
  throw modelError('unusable', `${path} has no pickle that would have to be converted for a picture`, {
    field: 'input.model',
    remedy: 'See in its status what it lacks.',
  })
}

const isThere = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  )

/**
 * Has `make` write the file under another name, looks at it, and gives it its own name: it is there whole or not at
 * all, and nothing that is there is written over.
 * @throws DarkroomError what `make` throws; `model.not_converted` when what was made is not sound, `model.exists`
 */
export async function whole<T>(target: string, make: (part: string) => Promise<T>): Promise<T & { bytes: number }> {
  await removeLeftOver(target)
  const part = partOf(target)
  try {
    const made = await make(part)
    const { reason } = await inspectFile(part)
    // What nobody has a use for is sound all the same.
    if (reason && reason.code !== 'not_understood') throw modelError('not_converted', `what was made of it is not sound: ${reason.message}`)
    const { size: bytes } = await stat(part)
    await link(part, target).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') throw modelError('exists', `${target} has come meanwhile`, { field: 'input.model' })
      throw modelError('not_converted', `${target} could not get its name: ${error.message}`, { cause: error })
    })
    return { ...made, bytes }
  } finally {
    await rm(part, { force: true })
  }
}

async function removeLeftOver(target: string): Promise<void> {
  const folder = dirname(target)
  const begins = `.${basename(target)}.`
  for (const name of (await readdir(folder)).filter((each) => each.startsWith(begins))) {
    const [, host, pid] = /^([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.part$/.exec(name.slice(begins.length)) ?? []
    if (host === undefined) continue
    const path = join(folder, name)
    const isLeft = host === hostId() ? !isAlive(Number(pid)) : Date.now() - (await modifiedAt(path)) > leftOverMs
    if (isLeft) await rm(path, { force: true })
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

const modifiedAt = (path: string): Promise<number> =>
  stat(path).then(
    ({ mtimeMs }) => mtimeMs,
    () => Infinity,
  )
