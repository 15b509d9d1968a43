import { closeSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { openLog as open, rotateLog } from '../src/log-files.ts'

const openLog = (path: string): number => {
  const log = open(path)
  if (log instanceof Error) throw log
  return log
}

let folder: string
let path: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'darkroom-logs-'))
  path = join(folder, 'api.log')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

it('a large log moves aside under the process that appends to it, which goes on at the beginning; so many old ones are kept', async () => {
  const descriptor = openLog(path)
  for (const round of ['one', 'two', 'three', 'four']) {
    writeSync(descriptor, `${round}\n`.repeat(100))
    expect(await rotateLog(path, { maxBytes: 100, kept: 2 })).toBe(true)
  }
  writeSync(descriptor, 'five\n')
  closeSync(descriptor)
  const read = (name: string): string => readFileSync(join(folder, name), 'utf8')
  expect(read('api.log')).toBe('five\n')
  expect(read('api.log.1')).toBe('four\n'.repeat(100))
  expect(read('api.log.2')).toBe('three\n'.repeat(100))
  expect(readdirSync(folder)).toHaveLength(3)
  for (const name of readdirSync(folder)) expect(statSync(join(folder, name)).mode & 0o777).toBe(0o600)
})

it('a small log, and one that is not there, stay as they are', async () => {
  expect(await rotateLog(path)).toBe(false)
  const descriptor = openLog(path)
  writeSync(descriptor, 'little\n')
  closeSync(descriptor)
  expect(await rotateLog(path)).toBe(false)
  expect(readdirSync(folder)).toEqual(['api.log'])
})
