/**
 * Files that lie, break off or attack: each is one verdict with its reason, in a moment, and none throws. What is
 * special about a file's kind (pipes, links, devices) is made on disk as it would be found.
 */
import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { inspectFile } from '../../src/models/inspect.ts'
import { judge } from '../../src/models/judge.ts'
import { resolveRoots } from '../../src/models/roots.ts'
import { type Verdict } from '../../src/models/verdict.ts'
import { framed, gguf, safetensors, text, writeImage, type Image } from '../support/headers.ts'
import { fit, hostileFiles } from '../support/hostile-files.ts'
import { list, lying, tensor } from '../support/hostile-parts.ts'

const folder = mkdtempSync(join(tmpdir(), 'darkroom-hostile-'))
afterAll(() => rmSync(folder, { recursive: true }))

/**
 * What one look may take of a processor, in ms; the hour does not count, since a machine does other things beside. The
 * quickest of some looks counts, since the first compiles the code.
 */
const maxMs = 300

async function look(path: string): Promise<Verdict> {
  const times: number[] = []
  let verdict: Verdict
  do {
    const begun = process.cpuUsage()
    verdict = await inspectFile(path)
    times.push(process.cpuUsage(begun).user / 1000)
  } while (Math.min(...times) >= maxMs / 2 && times.length < 5)
  expect(Math.min(...times)).toBeLessThan(maxMs)
  expect(JSON.stringify(verdict)).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/u)
  return verdict
}

let files = 0
const write = (image: Image, ending: string): string => writeImage(join(folder, `${files++}${ending}`), image)
/** One of them would leave it, were it opened. */
const mark = join(folder, 'opened')

describe('a hostile file', () => {
  it.each(hostileFiles(mark))('$name', async ({ image, ending, code, message }) => {
    const { reason, kind, format } = await look(write(image, ending))
    expect(reason).toMatchObject({ code, message: expect.stringMatching(message) as string })
    expect(reason?.field).not.toBe('')
    expect(reason?.remedy).not.toBe('')
    expect(kind).toBe('unknown')
    if (code === 'pickle') expect(format).toBe('pickle')
  })

  it('and no pickle was opened', () => expect(existsSync(mark)).toBe(false))
})

describe('what is no regular file', () => {
  it('a pipe is not opened, so nobody waits', async () => {
    const path = join(folder, 'pipe.safetensors')
    execFileSync('mkfifo', [path])
    expect((await look(path)).reason).toMatchObject({ code: 'not_a_file', message: 'It is a pipe, no regular file.' })
  })

  it('a folder', async () => {
    const path = join(folder, 'folder.safetensors')
    mkdirSync(path)
    expect((await look(path)).reason).toMatchObject({ code: 'not_a_file', message: 'It is a folder, no regular file.' })
  })

  it('a socket', async () => {
    const path = join(folder, 's.safetensors')
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(path, resolve))
    expect((await look(path)).reason).toMatchObject({ code: 'not_a_file', message: 'It is a socket, no regular file.' })
    await new Promise((resolve) => server.close(resolve))
  })

  it.each(['/dev/zero', '/dev/null'])('the device %s', async (path) => {
    expect((await look(path)).reason).toMatchObject({ code: 'not_a_file', message: 'It is a device, no regular file.' })
  })

  it('a link, also to itself', async () => {
    const [target, link, loop] = ['target', 'link', 'loop'].map((name) => join(folder, `${name}.safetensors`)) as [string, string, string]
    writeImage(target, safetensors({ emb_params: ['F32', [768]] }))
    symlinkSync(target, link)
    symlinkSync(loop, loop)
    expect((await look(link)).reason?.code).toBe('link')
    expect((await look(loop)).reason?.code).toBe('link')
    expect((await look(target)).kind).toBe('embedding')
  })

  it('nothing at all', async () => {
    expect((await look(join(folder, 'gone.safetensors'))).reason?.code).toBe('gone')
    expect((await look(join(folder, 'target.safetensors', 'below'))).reason?.code).toBe('gone')
  })

  it.skipIf(process.getuid?.() === 0)('a file that may not be read', async () => {
    const path = write(safetensors({ emb_params: ['F32', [768]] }), '.safetensors')
    chmodSync(path, 0)
    expect((await look(path)).reason).toMatchObject({ code: 'unreadable', message: expect.stringMatching(/EACCES/) as string })
  })
})

describe('what looks hostile and is sound', () => {
  it('a header that begins as a pickle does, since it has 640 bytes', async () => {
    const { head, body } = safetensors({ emb_params: ['F32', [768]] })
    const padded = framed(head.subarray(8).toString().padEnd(640))
    expect([padded[0], padded[1]]).toEqual([0x80, 2])
    expect((await look(write({ head: padded, body }, '.safetensors'))).kind).toBe('embedding')
  })

  it('safetensors under the name of a pickle', async () => {
    expect(await look(write(safetensors({ emb_params: ['F32', [768]] }), '.ckpt'))).toMatchObject({
      format: 'safetensors',
      kind: 'embedding',
    })
  })

  it('names out of order, white space, and no bytes at all in one tensor', async () => {
    const image = lying(
      ` { "x" : {"data_offsets": [ 3072 , 3072 ] , "shape" : [ 0 ], "dtype" : "F32" },\n "emb_params" : ${tensor('F32', [768], [0, 3072])} } `.slice(
        1,
      ),
      3072,
    )
    expect(await look(write(image, '.safetensors'))).toMatchObject({ kind: 'embedding', family: 'sd1' })
  })

  it('a tensor named __proto__ is one like any other', async () => {
    expect((await look(write(lying(`{"__proto__":${tensor('F32', [768], [0, 3072])}}`, 3072), '.safetensors'))).kind).toBe('embedding')
    expect(({} as { dtype?: unknown }).dtype).toBeUndefined()
  })

  it('a picture of 8 MB among the metadata', async () => {
    const verdict = await look(
      write(
        safetensors(
          { emb_params: ['F32', [768]] },
          { 'modelspec.thumbnail': `data:image/jpeg;base64,${'A'.repeat(8_000_000)}`, 'modelspec.title': 'x' },
        ),
        '.safetensors',
      ),
    )
    expect(verdict).toMatchObject({ kind: 'embedding', metadata: { title: 'x' } })
  })

  it('a vocabulary of 150,000 words in the header of a GGUF', async () => {
    const tokens = list(
      8,
      150_000,
      Array.from({ length: 150_000 }, (_, i) => text(`token${i}`)),
    )
    const verdict = await look(
      write(gguf({ metadata: { 'tokenizer.ggml.tokens': tokens, 'general.name': 'x' }, tensors: { 'a.b': ['F32', [8]] } }), '.gguf'),
    )
    expect(verdict).toMatchObject({ metadata: { title: 'x' }, reason: { code: 'not_understood' } })
  })
})

it('a file later than any date is as late as a date can be', async () => {
  const path = write(safetensors({ emb_params: ['F32', [768]] }), '.safetensors')
  const found = { path, real: path, name: 'late', folderKind: null, root: folder, isFolder: false, rank: 0, state: 'x', fault: null }
  const [entry] = await judge([{ ...found, files: [{ path, size: 4000, modifiedMs: 9e15, inode: 1 }] }], [])
  expect(new Date(entry?.modifiedAt ?? Number.NaN).toISOString()).toMatch(/^\+275760/)
})

describe('a hostile extra_model_paths.yaml', () => {
  const laughs = 'bcdefghi'.replaceAll(
    /./g,
    (name) => `${name}: &${name} [${`*${String.fromCharCode(name.charCodeAt(0) - 1)},`.repeat(9)}]\n`,
  )
  it.each<[string, string | Buffer, RegExp | undefined]>([
    ['of 170,000 folders', `a:\n  checkpoints: |\n${'    x\n'.repeat(170_000)}`, /more than 256 folders/],
    ['whose aliases multiply', `a: &a [x,x,x,x,x,x,x,x,x]\n${laughs}`, /alias/],
    ['with an alias of itself', 'a: &a\n  checkpoints: *a\n', undefined],
    ['of 100,000 lists in each other', '['.repeat(100_000), /call stack|deep/],
    ['with a function', 'a: !!js/function "x"\n', /sections/],
    ['that is no text', Buffer.alloc(1000, 0xff), /sections/],
    ['that is a list', '- a\n', /sections/],
    ['with a base of zero bytes', 'a:\n  base_path: "/tmp/\\0x"\n  checkpoints: x\n', /null bytes/],
    ['with numbers for folders', 'a:\n  base_path: 7\n  checkpoints: 9\n', undefined],
    ['with tabs', 'a:\n\tcheckpoints: x\n', /Tabs/],
    ['of two documents', 'a:\n  checkpoints: x\n---\nb: c\n', /multiple documents/],
    ['of 2 MB', 'a: b\n'.repeat(400_000), /1048576 are the most/],
  ])('%s', async (_, content, problem) => {
    const file = join(folder, 'extra_model_paths.yaml')
    writeFileSync(file, content)
    const begun = process.cpuUsage()
    const { roots, problems } = await resolveRoots([file])
    expect(process.cpuUsage(begun).user / 1000).toBeLessThan(2000)
    expect(roots).toEqual([])
    if (problem === undefined) expect(problems).toEqual([])
    else expect(problems).toEqual([{ path: expect.anything() as string, problem: expect.stringMatching(problem) as string }])
  })
})

it('random bytes behind every kind of beginning throw nothing', async () => {
  let state = 12_345
  const random = (): number => (state = (state * 1_103_515_245 + 12_345) % 2 ** 31) >>> 8
  const beginnings = [
    Buffer.alloc(0),
    framed('{"', 400n),
    framed('{"a":{"dtype":"F16","shape":[', 400n),
    Buffer.from('GGUF\u0003\u0000\u0000\u0000'),
    gguf({ tensors: fit }).head.subarray(0, 40),
  ]
  for (let i = 0; i < 150; i++) {
    const noise = Buffer.from(Array.from({ length: 420 }, () => random() & 0xff))
    const path = join(folder, `noise.${i % 2 === 0 ? 'safetensors' : 'gguf'}`)
    writeFileSync(path, Buffer.concat([beginnings[i % beginnings.length] ?? Buffer.alloc(0), noise]))
    expect((await look(path)).reason).toBeDefined()
  }
})
