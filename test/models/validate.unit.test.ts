/** What a look at every byte finds, tensor by tensor; on files as they lie on a disk. */
import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import type { Entry } from '../../src/models/entry.ts'
import { Hasher, type FileHashes } from '../../src/models/hash.ts'
import { Scanner } from '../../src/models/scanner.ts'
import { validate, type Validation } from '../../src/models/validate.ts'
import { framed, safetensors, writeImage, type Image } from '../support/headers.ts'

const folder = mkdtempSync(join(tmpdir(), 'darkroom-validate-'))
afterAll(() => rmSync(folder, { recursive: true }))

let files = 0
async function entryOf(image: Image | Buffer, ending = '.safetensors'): Promise<Entry> {
  const place = join(folder, String(files++))
  if (Buffer.isBuffer(image)) {
    writeImage(join(place, `m${ending}`), { head: image, body: 0 })
  } else writeImage(join(place, `m${ending}`), image)
  const scanner = new Scanner([place])
  await scanner.scan()
  const [entry] = scanner.entries.values()
  if (!entry) throw new Error('nothing was found')
  return entry
}

const never = new AbortController().signal
const look = (entry: Entry, known?: FileHashes): Promise<Validation> =>
  validate(entry, { hashesOf: async (all) => all.map(() => known) }, () => undefined, never)

/** One tensor of each type, at places of which none is a multiple of its numbers. */
const types = { half: 'F16', brain: 'BF16', single: 'F32', double: 'F64', e4m3: 'F8_E4M3', e5m2: 'F8_E5M2' } as const
const infinite: Record<keyof typeof types, number[]> = {
  half: [0x00, 0x7c],
  brain: [0x80, 0xff],
  single: [0x00, 0x00, 0xc0, 0x7f],
  double: [0, 0, 0, 0, 0, 0, 0xf0, 0xff],
  e4m3: [0xff],
  e5m2: [0x7d],
}

describe('numbers that are none', () => {
  // Larger than what is read at once, so that numbers lie across two reads.
  const shape = [1_100_000]
  const image = safetensors(Object.fromEntries(Object.entries(types).map(([name, type]) => [name, [type, shape] as const])), { of: 'odd' })
  const header = JSON.parse(image.head.subarray(8).toString()) as Record<string, { data_offsets: [number, number] }>
  const widths = Object.fromEntries(Object.entries(infinite).map(([name, { length }]) => [name, length]))

  it('are none in zeros, and are counted by tensor wherever they lie', async () => {
    const entry = await entryOf(image)
    expect(await look(entry)).toMatchObject({ isValid: true, findings: [], bytes: image.head.length + image.body })
    const chunk = 4 * 1024 * 1024
    const wanted: Record<string, number> = {}
    await using file = await open(entry.path, 'r+')
    for (const [name, bytes] of Object.entries(infinite)) {
      const width = widths[name] ?? 1
      const begin = image.head.length + (header[name]?.data_offsets[0] ?? 0)
      // The first, the last, and those around each border of what is read at once.
      const numbers = new Set([0, (shape[0] ?? 1) - 1])
      for (let at = chunk; at < image.head.length + image.body; at += chunk)
        for (const i of [-1, 0, 1]) {
          const number = Math.floor((at - begin) / width) + i
          if (number >= 0 && number < (shape[0] ?? 1)) numbers.add(number)
        }
      for (const number of numbers) await file.write(Buffer.from(bytes), 0, width, begin + number * width)
      wanted[name] = numbers.size
    }
    const { isValid, findings } = await look(entry)
    expect(isValid).toBe(true)
    const told = Object.fromEntries(
      findings.map(({ tensor, code, message }) => [tensor, [code, Number(/ holds (\d+) /.exec(message)?.[1])]]),
    )
    expect(told).toEqual(Object.fromEntries(Object.entries(wanted).map(([name, count]) => [name, ['not_finite', count]])))
  })

  it('and the greatest finite ones are numbers', async () => {
    const finite: [string, number[]][] = [
      ['F16', [0xff, 0x7b]],
      ['BF16', [0x7f, 0x7f]],
      ['F32', [0xff, 0xff, 0x7f, 0x7f]],
      ['F8_E4M3', [0x7e]],
      ['F8_E5M2', [0x7b]],
    ]
    for (const [type, bytes] of finite) {
      const { head } = safetensors({ a: [type, [3]] })
      expect((await look(await entryOf(Buffer.concat([head, ...[0, 1, 2].map(() => Buffer.from(bytes))])))).findings, type).toEqual([])
    }
  })
})

describe('what does not fit its header', () => {
  it('is told of every tensor that is cut', async () => {
    const { head, body } = safetensors({ a: ['F16', [8]], b: ['F16', [8]], c: ['F16', [8]] })
    const { isValid, findings } = await look(await entryOf({ head, body: body - 20 }))
    expect(isValid).toBe(false)
    expect(findings.filter(({ tensor }) => tensor !== null).map(({ tensor, code, message }) => ({ tensor, code, message }))).toEqual([
      { tensor: 'b', code: 'incomplete', message: 'Tensor “b” is cut: 12 bytes of its 16 bytes are there.' },
      { tensor: 'c', code: 'incomplete', message: 'Tensor “c” is cut: 0 bytes of its 16 bytes are there.' },
    ])
  })

  it('is told of every tensor that overlaps or leaves a gap', async () => {
    const at = (begin: number, end: number) => ({ dtype: 'U8', shape: [end - begin], data_offsets: [begin, end] })
    const head = framed(JSON.stringify({ a: at(0, 4), b: at(2, 6), c: at(8, 12) }))
    const { isValid, findings } = await look(await entryOf({ head, body: 12 }))
    expect(isValid).toBe(false)
    expect(findings.map(({ tensor, code }) => [tensor, code])).toEqual([
      ['b', 'layout'],
      ['c', 'layout'],
    ])
  })

  it('is told of what is no model at all, which is read as bytes', async () => {
    for (const [bytes, ending, code] of [
      [Buffer.from('\x80\x02}q\x00.', 'latin1'), '.safetensors', 'pickle'],
      [Buffer.from('\x80\x02}q\x00.', 'latin1'), '.ckpt', 'pickle'],
      [Buffer.from('<!doctype html><p>'), '.safetensors', 'web_page'],
      [Buffer.from('short'), '.safetensors', 'incomplete'],
    ] as const) {
      const { isValid, findings, found } = await look(await entryOf(bytes, ending))
      expect({ isValid, codes: [...new Set(findings.map((each) => each.code))] }).toEqual({ isValid: false, codes: [code] })
      expect(found.sha256).toMatch(/^[0-9a-f]{64}$/)
    }
  })
})

describe('against the hash that was recorded', () => {
  it('finds a change that size, time and inode do not show', async () => {
    const entry = await entryOf(safetensors({ a: ['F16', [64]] }))
    const stamp = new Date(1_700_000_000_000)
    utimesSync(entry.path, stamp, stamp)
    const hasher = new Hasher()
    const { hashes } = await hasher.hash(entry.path)
    await hasher.close()
    expect((await look(entry, hashes)).findings).toEqual([])
    await using file = await open(entry.path, 'r+')
    await file.write(Buffer.from([1]), 0, 1, entry.bytes - 1)
    utimesSync(entry.path, stamp, stamp)
    const { isValid, findings } = await look(entry, hashes)
    expect({ isValid, findings }).toMatchObject({ isValid: false, findings: [{ code: 'hash', message: /its bytes changed/ }] })
  })
})

it('tells how many bytes are done, and stops when it is told to', async () => {
  const entry = await entryOf({ ...safetensors({ a: ['U8', [96 * 2 ** 20]] }) })
  const stop = new AbortController()
  const done: number[] = []
  const progress = (bytes: number, total: number): void => {
    expect(total).toBe(entry.bytes)
    done.push(bytes)
    stop.abort(new Error('enough'))
  }
  await expect(validate(entry, { hashesOf: async () => [undefined] }, progress, stop.signal)).rejects.toThrow('enough')
  expect(done.every((bytes, i) => bytes > (done[i - 1] ?? 0))).toBe(true)
  writeFileSync(entry.path, '')
})
