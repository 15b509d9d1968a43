/** What the walk finds in folders, by names and places alone. */
import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, rename, rm, symlink, unlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Hasher, identityFiles, identityOf, pathOf } from '../../src/models/hash.ts'
import { judge, unjudged, type Judge } from '../../src/models/judge.ts'
import { looker, SilentFolder } from '../../src/models/look.ts'
import { resolveRoots } from '../../src/models/roots.ts'
import { Scanner } from '../../src/models/scanner.ts'
import { root } from '../../src/config.ts'
import { modelFiles, safetensors } from '../support/model.ts'
import { writeTree } from '../support/model-tree.ts'
import { writeFiles } from '../support/odd-models.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-walk-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const weights = safetensors('x')
const pipelineAt = (path: string): Record<string, unknown> =>
  Object.fromEntries(Object.entries(modelFiles()).map(([file, content]) => [`${path}/${file}`, content]))

async function scanned(...folders: string[]): Promise<Scanner> {
  const scanner = new Scanner(folders.length > 0 ? folders : [folder])
  await scanner.scan()
  return scanner
}
const namesOf = ({ entries }: Scanner): [string, string | null][] =>
  [...entries.values()].map(({ name, folderKind }): [string, string | null] => [name, folderKind]).toSorted(([a], [b]) => (a < b ? -1 : 1))

describe('a classifier of ONNX', () => {
  it('is one model, whose graph is part of its identity', async () => {
    await writeFiles(folder, {
      'classifiers/own/classifier.json': '{"labels": ["a"], "scores": "none"}',
      'classifiers/own/model.onnx': 'graph',
      'classifiers/own/preprocessor_config.json': '{}',
      'classifiers/bare/model.onnx': 'graph',
    })
    const { entries } = await scanned()
    expect([...entries.values()].map(({ name }) => name)).toEqual(['own'])
    const [entry] = entries.values()
    expect(identityFiles(entry as never).map(({ path }) => path)).toEqual(['classifier.json', 'model.onnx', 'preprocessor_config.json'])
  })
})

describe('names', () => {
  it.each<[string, string, string | null]>([
    ['checkpoints/sd/one.safetensors', 'sd/one', 'checkpoint'],
    ['constructor/one.safetensors', 'constructor/one', null],
    ['models/Stable-diffusion/one.ckpt', 'one', 'checkpoint'],
    ['models/diffusion_models/flux/dev.gguf', 'flux/dev', 'diffusion-model'],
    ['unet/one.sft', 'one', 'diffusion-model'],
    ['text_encoders/t5.safetensors', 't5', 'text-encoder'],
    ['clip/clip_l.safetensors', 'clip_l', 'text-encoder'],
    ['clip_vision/one.safetensors', 'one', 'clip-vision'],
    ['models/Lora/people/one.v2.safetensors', 'people/one.v2', 'lora'],
    ['loras/one.pt', 'one', 'lora'],
    ['VAE/one.pt', 'one', 'vae'],
    ['ControlNet/one.pth', 'one', 'controlnet'],
    ['ESRGAN/one.pth', 'one', 'upscaler'],
    ['RealESRGAN/one.pth', 'one', 'upscaler'],
    ['upscale_models/one.PTH', 'one', 'upscaler'],
    ['embeddings/one.bin', 'one', 'embedding'],
    ['ipadapter/one.bin', 'one', 'ip-adapter'],
    ['classifiers/one.safetensors', 'one', 'classifier'],
    ['preprocessors/one.safetensors', 'one', 'preprocessor'],
    ['annotators/midas/one.pt', 'midas/one', 'preprocessor'],
    ['annotator/one.pth', 'one', 'preprocessor'],
    ['ControlNet/annotator/one.pth', 'annotator/one', 'controlnet'],
    ['else/where/one.safetensors', 'else/where/one', null],
    // The first folder that says a kind counts.
    ['loras/vae/one.safetensors', 'vae/one', 'lora'],
  ])('%s is %s', async (file, name, kind) => {
    await writeFiles(folder, { [file]: weights })
    expect(namesOf(await scanned())).toEqual([[name, kind]])
  })

  it('of files in unet/ beside vae/ are their own: ComfyUI’s folder is no pipeline', async () => {
    await writeFiles(folder, { 'unet/one.safetensors': weights, 'vae/two.safetensors': weights, 'loras/three.safetensors': weights })
    expect(namesOf(await scanned())).toEqual([
      ['one', 'diffusion-model'],
      ['three', 'lora'],
      ['two', 'vae'],
    ])
  })

  it('of pipelines are those of their folders, and their parts have none', async () => {
    await writeFiles(folder, { ...pipelineAt('mine'), ...pipelineAt('diffusers/theirs'), 'mine/lora/extra.safetensors': weights })
    expect(namesOf(await scanned())).toEqual([
      ['extra', 'lora'],
      ['mine', null],
      ['theirs', 'checkpoint'],
    ])
  })

  it('of a root that is itself a pipeline is that of the root', async () => {
    await writeFiles(folder, pipelineAt('alone'))
    expect(namesOf(await scanned(join(folder, 'alone')))).toEqual([['alone', null]])
  })

  it('of a hub cache are organisation and repository, other revisions beside that of main', async () => {
    const [main, other] = ['a'.repeat(40), 'b'.repeat(40)]
    await writeFiles(folder, {
      ...pipelineAt(`hub/models--org--name/snapshots/${main}`),
      ...pipelineAt(`hub/models--org--name/snapshots/${other}`),
      'hub/models--org--name/refs/main': `${main}\n`,
      'hub/models--org--name/blobs/x.safetensors': weights,
    })
    expect(namesOf(await scanned())).toEqual([
      ['hub/org/name', null],
      ['hub/org/name@bbbbbbbbbb', null],
    ])
  })
})

describe('roots', () => {
  it('are those of extra_model_paths.yaml too, by kind, from its base_path', async () => {
    await writeFiles(folder, {
      'comfy/extra_model_paths.yaml':
        'a111:\n  base_path: ../webui\n  checkpoints: models/Stable-diffusion\n  loras: |\n    models/Lora\n    models/LyCORIS\n  custom_nodes: nodes\nnothing:\n',
      'webui/models/Stable-diffusion/one.safetensors': weights,
      'webui/models/Lora/two.safetensors': weights,
      'webui/models/LyCORIS/three.safetensors': weights,
      'webui/nodes/four.safetensors': weights,
    })
    const expected = [
      ['one', 'checkpoint'],
      ['three', 'lora'],
      ['two', 'lora'],
    ]
    expect(namesOf(await scanned(join(folder, 'comfy')))).toEqual(expected)
    expect(namesOf(await scanned(join(folder, 'comfy/extra_model_paths.yaml')))).toEqual(expected)
  })

  it.each([
    ['no YAML', 'a: [1,', /.+/],
    ['no sections', '- 1\n- 2\n', /sections/],
    [
      'an alias bomb',
      `a: &a [x,x,x,x,x,x,x,x,x]\n${Array.from({ length: 9 }, (_, i) => `b${i}: &b${i} [${Array.from({ length: 9 }, () => `*${i === 0 ? 'a' : `b${i - 1}`}`).join()}]`).join('\n')}`,
      /.+/,
    ],
  ])('that cannot be read is a problem and stops nothing: %s', async (_, text, problem) => {
    await writeFiles(folder, { 'extra_model_paths.yaml': text, 'one.safetensors': weights })
    const scanner = await scanned()
    expect(namesOf(scanner)).toEqual([['one', null]])
    expect(scanner.problems).toEqual([{ path: join(folder, 'extra_model_paths.yaml'), problem: expect.stringMatching(problem) as string }])
  })

  it('that do not exist are passed over; a folder that a file names is missed', async () => {
    await writeFiles(folder, { 'extra_model_paths.yaml': 'a:\n  checkpoints: nowhere\n' })
    const { roots, problems } = await resolveRoots([join(folder, 'none'), folder])
    expect(roots.map(({ path }) => path)).toEqual([folder])
    expect(problems).toEqual([
      {
        path: join(folder, 'nowhere'),
        problem: expect.stringMatching(/^there is no such folder, which \S+extra_model_paths.yaml names$/) as string,
      },
    ])
  })
})

describe('again', () => {
  it('looks at the headers of what has changed alone, and forgets what is gone', async () => {
    await writeFiles(folder, { 'loras/a.safetensors': weights, 'loras/b.safetensors': weights, 'vae/c.safetensors': weights })
    const scanner = await scanned()
    const before = new Map(scanner.entries)
    await writeFile(join(folder, 'loras/a.safetensors'), Buffer.concat([weights, weights]))
    await unlink(join(folder, 'vae/c.safetensors'))
    await writeFiles(folder, { 'loras/new/d.safetensors': weights })
    const changes = await scanner.scanAgain([join(folder, 'loras'), join(folder, 'vae')])
    expect(changes.changed.map(({ name }) => name).toSorted()).toEqual(['a', 'new/d'])
    expect(changes.removed).toEqual([join(folder, 'vae/c.safetensors')])
    expect(scanner.entries.get(join(folder, 'loras/b.safetensors'))).toBe(before.get(join(folder, 'loras/b.safetensors')))
    expect((await scanner.scan()).changed).toEqual([])
    const later = new Scanner([folder], { known: scanner.entries })
    expect(await later.scan()).toEqual({ changed: [], removed: [] })
  })

  it('a folder that was moved is gone with all below it, and found where it is', async () => {
    await writeFiles(folder, { 'loras/x/y/a.safetensors': weights })
    const scanner = await scanned()
    await rename(join(folder, 'loras/x'), join(folder, 'loras/z'))
    const { changed, removed } = await scanner.scanAgain([join(folder, 'loras')])
    expect([changed.map(({ name }) => name), removed]).toEqual([['z/y/a'], [join(folder, 'loras/x/y/a.safetensors')]])
  })
})

describe('links', () => {
  it('in circles end, and a model behind two names has both', async () => {
    await writeFiles(folder, pipelineAt('real'))
    await symlink('.', join(folder, 'circle'))
    await symlink('real', join(folder, 'second'))
    for (const name of ['a', 'b']) await mkdir(join(folder, name))
    await symlink('../b', join(folder, 'a/to-b'))
    await symlink('../a', join(folder, 'b/to-a'))
    expect(namesOf(await scanned())).toEqual([
      ['real', null],
      ['second', null],
    ])
  })
})

describe('a folder that does not answer', () => {
  it('ends the look in time, and is not asked again before it has', async () => {
    const look = looker(50)
    let answer = (): void => undefined
    const hanging = new Promise<void>((resolve) => (answer = resolve))
    await expect(look('/net', () => hanging)).rejects.toThrow(SilentFolder)
    let asked = 0
    const again = (): Promise<number> => look('/net', () => Promise.resolve(++asked))
    await expect(again()).rejects.toThrow('/net did not answer within 0.05 s')
    expect(asked).toBe(0)
    answer()
    await hanging
    expect(await again()).toBe(1)
  })
})

it('what could not be looked at is looked at again with everything, and not at each change of another folder', async () => {
  await writeFiles(folder, { 'a/one.safetensors': weights, 'b/two.safetensors': weights })
  let asked = 0
  const judged: Judge = async (some, roots) => {
    asked += some.length
    return asked <= 2 ? some.map((found) => unjudged(found, 'it did not answer')) : judge(some, roots)
  }
  const scanner = new Scanner([folder], { judge: judged })
  const { changed } = await scanner.scan()
  expect(changed.map(({ verdict }) => verdict.reason?.code)).toEqual(['unreadable', 'unreadable'])
  expect((await scanner.scanAgain([join(folder, 'a')])).changed).toEqual([])
  expect((await scanner.scan()).changed.map(({ verdict }) => verdict.reason?.code)).not.toContain('unreadable')
  expect((await scanner.scan()).changed).toEqual([])
  expect(asked).toBe(4)
})

describe('the identity', () => {
  const identity = async (path: string): Promise<string> => {
    const hasher = new Hasher()
    try {
      const entry = [...(await scanned(folder)).entries.values()].find((each) => each.path === path)
      if (!entry) throw new Error(`${path} was not found`)
      const files = identityFiles(entry)
      const hashes = await Promise.all(files.map((file) => hasher.hash(pathOf(path, file))))
      return identityOf(
        entry.isFolder,
        files,
        hashes.map((each) => each.hashes),
      ).bodyHash
    } finally {
      await hasher.close()
    }
  }

  it('of the model of the repository is the one its pictures were made with', async () => {
    const scanner = await scanned(join(root, 'models'))
    const hasher = new Hasher()
    const entry = scanner.entries.get(join(root, 'models/darkroom-tiny'))
    if (!entry) throw new Error('darkroom-tiny was not found')
    const files = identityFiles(entry)
    const hashes = await Promise.all(files.map(async (file) => (await hasher.hash(pathOf(entry.path, file))).hashes))
    await hasher.close()
    expect(identityOf(true, files, hashes).bodyHash).toBe('47869731310d3ce556b1dd10d9f7b9d62990b33b2b6769c4ed5bb81b1642b934')
  })

  it('of a folder covers every part that a family loads, and first those that every model has', () => {
    const file = (path: string) => ({ path, size: 1, modifiedMs: 1, inode: 1 })
    const parts = [
      'scheduler',
      'text_encoder',
      'text_encoder_2',
      'text_encoder_3',
      'tokenizer',
      'tokenizer_2',
      'tokenizer_3',
      'transformer',
    ]
    const others = ['model_index.json', 'safety_checker/model.safetensors', 'tokenizer/chat_template.jinja', 'vae/config.json']
    const files = [...others, ...parts.map((part) => `${part}/x.json`)].map(file)
    expect(identityFiles({ isFolder: true, files }).map(({ path }) => path)).toEqual([
      'vae/config.json',
      'text_encoder/x.json',
      'tokenizer/chat_template.jinja',
      'tokenizer/x.json',
      'scheduler/x.json',
      'transformer/x.json',
      'text_encoder_2/x.json',
      'text_encoder_3/x.json',
      'tokenizer_2/x.json',
      'tokenizer_3/x.json',
      'model_index.json',
    ])
    const small = ['model_index.json', 'unet/x.json', 'vae/config.json'].map(file)
    expect(identityFiles({ isFolder: true, files: small }).map(({ path }) => path)).toEqual(['unet/x.json', 'vae/config.json'])
  })

  it('of a file is that of its tensors: another header is the same model', async () => {
    const [one, two] = [safetensors('one'), safetensors('twofold')]
    two.copy(one, one.length - 8, two.length - 8)
    await writeFiles(folder, { 'a.safetensors': one, 'b.safetensors': two })
    expect(await identity(join(folder, 'a.safetensors'))).toBe(await identity(join(folder, 'b.safetensors')))
  })

  it('is computed no faster than it may be, until it may', async () => {
    await writeFile(join(folder, 'a.bin'), Buffer.alloc(12 * 2 ** 20))
    const hasher = new Hasher(1)
    try {
      hasher.pace = 4 * 2 ** 20
      const from = performance.now()
      const { hashes } = await hasher.hash(join(folder, 'a.bin'))
      // Three pieces of 4 MiB, a second each.
      expect(performance.now() - from).toBeGreaterThan(2900)
      hasher.pace = 0
      const halted = hasher.hash(join(folder, 'a.bin'))
      expect(await Promise.race([halted, new Promise((resolve) => setTimeout(resolve, 500, 'halted'))])).toBe('halted')
      hasher.pace = Infinity
      expect((await halted).hashes).toEqual(hashes)
    } finally {
      await hasher.close()
    }
  })

  it('is not computed of a pipe that took the file’s place, nor of a file that is cut off', async () => {
    execFileSync('mkfifo', [join(folder, 'a.safetensors')])
    await writeFile(join(folder, 'b.safetensors'), weights.subarray(0, 12))
    const hasher = new Hasher()
    await expect(hasher.hash(join(folder, 'a.safetensors'))).rejects.toThrow('no regular file')
    await expect(hasher.hash(join(folder, 'b.safetensors'))).rejects.toThrow('no safetensors file')
    await expect(hasher.hash(join(folder, 'none.safetensors'))).rejects.toThrow('ENOENT')
    await hasher.close()
  })
})

it('the tree that the benchmark looks at holds models of most kinds, each understood', async () => {
  await writeTree(folder, 19)
  const verdicts = [...(await scanned()).entries.values()].map(({ verdict }) => verdict)
  expect(verdicts.flatMap(({ reason }) => reason?.message ?? [])).toEqual([])
  const kinds = ['checkpoint', 'controlnet', 'diffusion-model', 'embedding', 'lora', 'text-encoder', 'upscaler', 'vae']
  expect([...new Set(verdicts.map(({ kind }) => kind))].toSorted()).toEqual(kinds)
})
