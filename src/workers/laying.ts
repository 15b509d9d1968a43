/** What a step goes on from, laid into its attempt's folder for the Python child. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { onDisk } from '../disk.ts'
import type { Attempt } from '../engine/attempt.ts'
import { DarkroomError, ensureError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { MadeFiles } from './made-files.ts'
import type { CheckpointGiven, FileGiven } from './python/protocol.ts'

export interface LayingParts {
  /** As `Tools.read`. */
  read: (sha256: string) => Promise<Buffer>
  /** What the session's last step has made here. */
  last?: MadeFiles | undefined
  attempt: Attempt
  folder: string
  log: Logger
}

/**
 * Writes input artifacts as files of the attempt. One whose bytes are gone or broken is left out, and the child does
 * without.
 */
export async function layFiles(files: Record<string, string | null>, parts: LayingParts): Promise<Record<string, FileGiven>> {
  const laid: Record<string, FileGiven> = {}
  for (const [name, sha256] of Object.entries(files)) {
    if (sha256 === null) continue
    const path = await laidAs(`${name}.in`, sha256, parts)
    if (path instanceof DarkroomError)
      parts.log.warn({ step: parts.attempt.stepKey, file: name, code: path.code }, 'an input tensor is missing or broken')
    else laid[name] = { path, sha256 }
  }
  return laid
}

/**
 * The newest checkpoint whose bytes are whole; a broken one falls back to the one before, then to call 0. `note`: tells
 * the session's history of one that is not used.
 */
export async function layCheckpoint(parts: LayingParts, note: (text: string) => Promise<void>): Promise<CheckpointGiven | null> {
  for (const { sha256, call } of parts.attempt.checkpoints) {
    const path = await laidAs('checkpoint.in', sha256, parts)
    if (!(path instanceof DarkroomError)) return { path, sha256, call }
    await note(`the checkpoint at call ${call} is not used: ${path.message}`)
  }
  return null
}

/** Path of the file; why there is none where the bytes are gone or broken. @throws DarkroomError `disk.full` */
async function laidAs(name: string, sha256: string, { read, folder, last }: LayingParts): Promise<string | DarkroomError> {
  const path = join(folder, name)
  if (await last?.link(sha256, path)) return path
  const bytes = await read(sha256).catch((error: unknown) => ensureError(error, 'artifact.missing'))
  if (bytes instanceof DarkroomError) return bytes
  await onDisk(path, writeFile(path, bytes, { mode: 0o600 }))
  return path
}
