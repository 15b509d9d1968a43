/**
 * What lies in the folder of a private Redis: whether a version of Redis reads it, what is wrong when it does not, and
 * the repair of an append-only file whose end is damaged.
 *
 * A Redis that finds none of the files that it looks for begins empty and says nothing. Up to 6.2 it looks for
 * `appendonly.aof`, from 7.0 on for `appendonlydir/` with a manifest: an older one would not even see the data.
 */
import { spawn } from 'node:child_process'
import { cpSync, existsSync, readdirSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { howToInstall } from '../host/places.mjs'
import { defineErrors } from './errors.ts'

const dataError = defineErrors('redis', {
  unreadable: {
    class: 'permanent',
    remedy: `Start Darkroom with the Redis that wrote these files, or a newer one: ${howToInstall()}. Nothing was changed.`,
  },
  damaged: {
    class: 'permanent',
    remedy: 'Run `npx darkroom repair`: it keeps a copy of the file and cuts it after its last whole command. Nothing was changed.',
  },
})

/** Files from Redis 7.0 on, in a folder of their own. */
const partsOf = (folder: string): string => join(folder, 'appendonlydir')
const manifestOf = (folder: string): string | undefined => {
  const parts = partsOf(folder)
  const name = existsSync(parts) ? readdirSync(parts).find((each) => each.endsWith('.manifest')) : undefined
  return name === undefined ? undefined : join(parts, name)
}

/**
 * Refuses what a Redis of this version would pass over.
 * @throws DarkroomError `redis.unreadable`
 */
export function checkReadable(folder: string, version: string): void {
  const [major = 0] = version.split('.').map(Number)
  const manifest = manifestOf(folder)
  if (major >= 7 || manifest === undefined) return
  throw dataError(
    'unreadable',
    `the data in ${folder} was written by Redis 7.0 or newer (${manifest}), and this is Redis ${version}, which would not see it and begin empty`,
  )
}

/**
 * The error behind the words with which a Redis has ended at its start, when they speak of its files.
 * @param words the end of its log
 */
export function faultIn(words: string, folder: string): Error | undefined {
  const said = (pattern: RegExp): string | undefined => words.split('\n').find((line) => pattern.test(line))
  const file = manifestOf(folder) ?? join(folder, 'appendonly.aof')
  const newer = said(/Can't handle RDB format version|Unknown command .* reading the append only file|nvalid AOF (manifest|file) format/)
  if (newer !== undefined) return dataError('unreadable', `this Redis cannot read ${file}, which a newer one has written: ${newer.trim()}`)
  const broken = said(
    /Bad file format|Unexpected end of file|Unrecoverable error reading|Error reading the RDB preamble|Wrong signature|RDB CRC|Internal error in RDB/,
  )
  return broken === undefined ? undefined : dataError('damaged', `the append-only file ${file} is damaged: ${broken.trim()}`)
}

/** What Redis says when it has cut the torn last command of a crash; undefined when it has cut nothing. */
export function cutIn(words: string): string | undefined {
  const [, offset] = /Truncating the AOF [^\n]*?(?:at offset|to) (\d+)/.exec(words) ?? []
  return offset === undefined
    ? undefined
    : `the last command in its file was incomplete, as after a crash, and was cut off at byte ${offset}`
}

export interface Repair {
  file: string
  /** Where the file as it was is kept. */
  copy: string
  /** What the repair has cut off. */
  bytes: number
}

/**
 * Cuts an append-only file after its last whole command; what stands behind it is lost. The file as it was is kept
 * beside it. Undefined when there is nothing to cut. The caller holds the lock of the folder.
 * @param program a redis-server, which is its own repair tool when it is called by that name
 * @throws DarkroomError `redis.damaged` when it cannot be repaired
 */
export async function repairAppendOnlyFile(folder: string, program: string, now = new Date()): Promise<Repair | undefined> {
  const manifest = manifestOf(folder)
  const file = manifest ?? join(folder, 'appendonly.aof')
  if (!existsSync(file)) return undefined
  const kept = manifest === undefined ? file : partsOf(folder)
  const before = bytesOf(kept)
  const check = await checkAof(program, [file])
  if (check.code === 0) return undefined
  const copy = `${kept}.damaged-${now.toISOString().replaceAll(':', '').slice(0, 17)}`
  cpSync(kept, copy, { recursive: true, preserveTimestamps: true, errorOnExist: true, force: false })
  const { code, words } = await checkAof(program, ['--fix', file])
  if (code === 0) return { file, copy, bytes: before - bytesOf(kept) }
  throw dataError('damaged', `${file} cannot be repaired: ${words.trim().split('\n').slice(-2).join(' ')}`, {
    remedy: `Put a backup of ${kept} in its place; the damaged one is kept in ${copy}.`,
  })
}

const bytesOf = (path: string): number =>
  statSync(path).isDirectory() ? readdirSync(path).reduce((sum, name) => sum + bytesOf(join(path, name)), 0) : statSync(path).size

/** Never throws: a program that cannot start has code -1. */
function checkAof(program: string, args: string[]): Promise<{ code: number; words: string }> {
  const argv0 = basename(program).startsWith('valkey') ? 'valkey-check-aof' : 'redis-check-aof'
  return new Promise((settle) => {
    const child = spawn(program, args, { argv0, stdio: ['pipe', 'pipe', 'pipe'] })
    let words = ''
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (words += text))
    child.on('error', (error) => settle({ code: -1, words: error.message }))
    child.on('close', (code) => settle({ code: code ?? -1, words }))
    child.stdin.on('error', () => undefined)
    // It asks before it cuts.
    child.stdin.end('y\n')
  })
}
