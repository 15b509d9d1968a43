/** What people's model folders look like: sound, broken, foreign or hostile layouts, each in its own folder. */
import { execFileSync } from 'node:child_process'
import { chmod, link, mkdir, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { dirname, join } from 'node:path'
import { modelFiles, safetensors } from './model.ts'

/** Writes files below a folder, by path; text, bytes, or a value as JSON. */
export async function writeFiles(folder: string, files: Record<string, unknown>): Promise<void> {
  for (const [file, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, file)), { recursive: true })
    await writeFile(join(folder, file), typeof content === 'string' || content instanceof Uint8Array ? content : JSON.stringify(content))
  }
}

/** The files of a sound pipeline with some of them changed; undefined takes one out. */
const pipeline = (changes: Record<string, unknown> = {}): Record<string, unknown> =>
  Object.fromEntries(Object.entries({ ...modelFiles(), ...changes }).filter(([, content]) => content !== undefined))

export interface OddModel {
  /** Also the folder that it lies in. */
  name: string
  make: (folder: string) => Promise<void>
  /** Paths below its folder that are listed, with their status and what their `why` says. */
  listed: Record<string, { status: string | string[]; why?: RegExp }>
}

const files = (name: string, content: Record<string, unknown>, listed: OddModel['listed']): OddModel => ({
  name,
  make: (folder) => writeFiles(folder, content),
  listed,
})
const faulty = ['broken', 'refused']
const lfs =
  'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n'
const bom = '\uFEFF'

const index = (): object => modelFiles()['model_index.json'] as object
const shard = (n: number, of: number): string =>
  `diffusion_pytorch_model-${String(n).padStart(5, '0')}-of-${String(of).padStart(5, '0')}.safetensors`
/** A pipeline whose network is these shards, with an index of them or none. */
const sharded = (weights: Record<string, string> | undefined, shards: Record<string, Buffer> = {}): Record<string, unknown> =>
  pipeline({
    'unet/diffusion_pytorch_model.safetensors': undefined,
    ...(weights && { 'unet/diffusion_pytorch_model.safetensors.index.json': { weight_map: weights } }),
    ...Object.fromEntries(Object.entries(shards).map(([name, content]) => [`unet/${name}`, content])),
  })

/** Each a kind of its own. `cleanUp` ends what some of them need to be. */
export const oddModels: readonly OddModel[] = [
  files(
    'half-copied',
    { 'm/model_index.json': modelFiles()['model_index.json'], 'm/unet/config.json': modelFiles()['unet/config.json'] },
    { m: { status: faulty } },
  ),
  files('no-index', { ...under('m', pipeline({ 'model_index.json': undefined })) }, { m: { status: faulty, why: /model_index\.json/ } }),
  files('no-vae-config', under('m', pipeline({ 'vae/config.json': undefined })), { m: { status: [...faulty, 'unsupported'], why: /vae/ } }),
  files('lfs-pointers', under('m', pipeline({ 'unet/diffusion_pytorch_model.safetensors': lfs })), {
    m: { status: faulty, why: /git-lfs/ },
  }),
  files('lfs-index', under('m', pipeline({ 'model_index.json': lfs })), { m: { status: faulty } }),
  files('lfs-file', { 'a.safetensors': lfs }, { 'a.safetensors': { status: 'broken', why: /git-lfs/ } }),
  files('empty-file', { 'a.safetensors': '' }, { 'a.safetensors': { status: 'broken', why: /empty/ } }),
  files('empty-weights', under('m', pipeline({ 'vae/diffusion_pytorch_model.safetensors': '' })), { m: { status: faulty, why: /empty/ } }),
  files('empty-index', under('m', pipeline({ 'model_index.json': '' })), { m: { status: faulty } }),
  files('bom', under('m', pipeline({ 'unet/config.json': `${bom}${JSON.stringify(modelFiles()['unet/config.json'])}` })), {
    m: { status: [...faulty, 'unsupported', 'usable'] },
  }),
  files('trailing-comma', under('m', pipeline({ 'unet/config.json': '{"sample_size": 16,}' })), {
    m: { status: [...faulty, 'unsupported'], why: /unet\/config\.json/ },
  }),
  files('index-of-another-type', under('m', pipeline({ 'model_index.json': '[1, 2]' })), { m: { status: faulty } }),
  files('index-null', under('m', pipeline({ 'model_index.json': 'null' })), { m: { status: faulty } }),
  files(
    'fields-of-another-type',
    under('m', pipeline({ 'vae/config.json': { block_out_channels: 'many' }, 'unet/config.json': { sample_size: { x: 1 } } })),
    {
      m: { status: [...faulty, 'unsupported', 'unknown'] },
    },
  ),
  files('index-is-a-folder', { 'm/model_index.json/x': 'x', 'm/unet/config.json': '{}' }, { m: { status: faulty } }),
  files(
    'part-is-a-file',
    under('m', { ...pipeline({ 'unet/config.json': undefined, 'unet/diffusion_pytorch_model.safetensors': undefined }), unet: 'x' }),
    { m: { status: faulty } },
  ),
  files(
    'web-page',
    { 'a.safetensors': '<!DOCTYPE html><html><body>Not found</body></html>' },
    { 'a.safetensors': { status: 'broken', why: /web page/ } },
  ),
  files('cut-off', { 'a.safetensors': safetensors('x').subarray(0, 40) }, { 'a.safetensors': { status: 'broken' } }),
  files('lying-length', { 'a.safetensors': Buffer.from('ffffffffffffff7f7b7d', 'hex') }, { 'a.safetensors': { status: 'broken' } }),
  files(
    'renamed-pickle',
    { 'a.safetensors': Buffer.from('80049501000000', 'hex') },
    { 'a.safetensors': { status: 'refused', why: /pickle/ } },
  ),
  files('pickle', { 'a.ckpt': Buffer.from('504b0304', 'hex') }, { 'a.ckpt': { status: 'refused', why: /pickle|zip/ } }),
  files(
    'download',
    { 'a.safetensors.part': 'x', 'b.safetensors.crdownload': 'x' },
    { 'a.safetensors.part': { status: 'broken', why: /download/ }, 'b.safetensors.crdownload': { status: 'broken' } },
  ),
  files(
    'leftovers',
    {
      '.DS_Store': 'x',
      'Thumbs.db': 'x',
      '._a.safetensors': 'x',
      '.git/HEAD': 'x',
      '.cache/huggingface/download/a.safetensors.incomplete': 'x',
      'desktop.ini': 'x',
      'README.md': 'x',
    },
    {},
  ),
  files('names', { ['a\nb\u001b[31m.safetensors']: 'x' }, { ['a\nb\u001b[31m.safetensors']: { status: 'broken' } }),
  files(
    'prototype',
    { '__proto__.safetensors': '', 'constructor/model_index.json': '{"__proto__": {"a": 1}}' },
    { '__proto__.safetensors': { status: 'broken' }, constructor: { status: [...faulty, 'unknown', 'unsupported'] } },
  ),
  {
    name: 'pipe',
    make: (folder) => mkdir(folder, { recursive: true }).then(() => void execFileSync('mkfifo', [join(folder, 'a.safetensors')])),
    listed: { 'a.safetensors': { status: 'refused', why: /named pipe/ } },
  },
  {
    name: 'pipe-in-a-part',
    make: async (folder) => {
      await writeFiles(
        folder,
        under('m', pipeline({ 'unet/diffusion_pytorch_model.safetensors': undefined, 'unet/config.json': undefined })),
      )
      await mkdir(join(folder, 'm/unet'), { recursive: true })
      for (const file of ['config.json', 'diffusion_pytorch_model.safetensors']) execFileSync('mkfifo', [join(folder, 'm/unet', file)])
    },
    listed: { m: { status: 'refused', why: /named pipe/ } },
  },
  {
    name: 'pipe-as-index',
    make: async (folder) => {
      await writeFiles(folder, under('m', pipeline({ 'model_index.json': undefined })))
      execFileSync('mkfifo', [join(folder, 'm/model_index.json')])
    },
    listed: { m: { status: 'refused', why: /named pipe/ } },
  },
  {
    name: 'dangling-link',
    make: (folder) => mkdir(folder, { recursive: true }).then(() => symlink('nowhere', join(folder, 'a.safetensors'))),
    listed: { 'a.safetensors': { status: faulty, why: /leads nowhere/ } },
  },
  {
    name: 'links-in-a-circle',
    make: async (folder) => {
      await mkdir(folder, { recursive: true })
      await symlink('b.safetensors', join(folder, 'a.safetensors'))
      await symlink('a.safetensors', join(folder, 'b.safetensors'))
      await symlink('..', join(folder, 'up'))
      await symlink('.', join(folder, 'self'))
    },
    listed: { 'a.safetensors': { status: faulty, why: /leads to itself/ } },
  },
  {
    name: 'link-out',
    make: async (folder) => {
      await writeFiles(join(folder, '../../../outside'), { 'x.safetensors': safetensors('x') })
      await mkdir(folder, { recursive: true })
      await symlink('../../../outside/x.safetensors', join(folder, 'a.safetensors'))
      await symlink('../../../outside', join(folder, 'folder'))
      await symlink('/dev/zero', join(folder, 'zero.safetensors'))
      await symlink('/etc', join(folder, 'etc'))
    },
    listed: {
      'a.safetensors': { status: 'refused', why: /outside of the model folders/ },
      folder: { status: 'refused', why: /outside of the model folders/ },
      'zero.safetensors': { status: 'refused', why: /outside of the model folders/ },
      etc: { status: 'refused', why: /outside of the model folders/ },
    },
  },
  {
    name: 'link-out-of-a-part',
    make: async (folder) => {
      await writeFiles(folder, under('m', pipeline({ 'unet/config.json': undefined })))
      await writeFiles(join(folder, '../../../outside'), { 'config.json': modelFiles()['unet/config.json'] })
      await symlink('../../../../../outside/config.json', join(folder, 'm/unet/config.json'))
    },
    listed: { m: { status: faulty, why: /outside of the model folders/ } },
  },
  {
    name: 'deep',
    make: (folder) => writeFiles(folder, { [`${'d/'.repeat(40)}a.safetensors`]: 'x' }),
    listed: { ['d/'.repeat(23).slice(0, -1)]: { status: 'broken', why: /deep/ } },
  },
  {
    name: 'unreadable',
    make: async (folder) => {
      await writeFiles(folder, { 'closed/a.safetensors': 'x', 'b.safetensors': safetensors('x') })
      await chmod(join(folder, 'b.safetensors'), 0)
      await chmod(join(folder, 'closed'), 0)
    },
    // The superuser reads it all the same.
    listed:
      process.getuid?.() === 0
        ? { 'b.safetensors': { status: 'unknown' } }
        : { closed: { status: 'broken', why: /cannot be read/ }, 'b.safetensors': { status: 'broken' } },
  },
  files(
    'another-family',
    under('m', pipeline({ 'model_index.json': { _class_name: 'StableDiffusionXLPipeline', unet: ['diffusers', 'UNet2DConditionModel'] } })),
    {
      m: { status: [...faulty, 'unsupported'] },
    },
  ),
  files('immense-settings', under('m', pipeline({ 'manifest.json': { recommended: { width: 65536, height: 65536, steps: 100_000 } } })), {
    m: { status: 'usable' },
  }),
  files('faulty-manifest', under('m', pipeline({ 'manifest.json': `${bom}{"recommended": 3,}` })), { m: { status: 'usable' } }),
  files(
    'foreign-recommendations',
    under('m', pipeline({ 'manifest.json': { recommended: { width: 'wide', steps: -3, sampler: 7 }, vocabulary: [1] } })),
    { m: { status: 'usable' } },
  ),
  files('shards-outside', under('m', sharded({ a: '../../../../etc/passwd' })), { m: { status: 'broken', why: /no name of a shard/ } }),
  files('shards-60000', under('m', sharded(Object.fromEntries(Array.from({ length: 60_000 }, (_, i) => [`t${i}`, shard(i, 60_000)])))), {
    m: { status: 'broken', why: /60000 of its 60000 shards are missing/ },
  }),
  files(
    'shards-elsewhere',
    under(
      'm',
      sharded({ unet: shard(2, 2), other: shard(1, 2) }, { [shard(1, 2)]: safetensors('unet'), [shard(2, 2)]: safetensors('other') }),
    ),
    { m: { status: 'broken', why: /puts the tensor “unet” elsewhere/ } },
  ),
  files('shards-twice', under('m', sharded(undefined, { [shard(1, 2)]: safetensors('unet'), [shard(2, 2)]: safetensors('unet') })), {
    m: { status: 'broken', why: /Two shards hold/ },
  }),
  files('shards-of-none', under('m', sharded(undefined, { [shard(0, 0)]: safetensors('unet') })), {
    m: { status: 'broken', why: /no shard of 0/ },
  }),
  files('immense-latents', under('m', pipeline({ 'unet/config.json': { sample_size: 9_007_199_254_740_991, in_channels: 4 } })), {
    m: { status: [...faulty, 'unsupported'], why: /sample_size/ },
  }),
  files('utf-16', under('m', pipeline({ 'unet/config.json': Buffer.from('{"sample_size": 16}', 'utf16le') })), {
    m: { status: 'broken', why: /unet\/config\.json is no JSON/ },
  }),
  files('part-outside', under('m', pipeline({ 'model_index.json': { ...index(), '../../etc': ['diffusers', 'X'] } })), {
    m: { status: 'broken', why: /no name of a folder/ },
  }),
  files(
    'parts-10000',
    under(
      'm',
      pipeline({
        'model_index.json': { ...index(), ...Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`p${i}`, ['x', 'X']])) },
      }),
    ),
    { m: { status: 'broken', why: /one part too many/ } },
  ),
  {
    name: 'no-text',
    make: async (folder) => {
      await mkdir(folder, { recursive: true })
      await writeFile(
        Buffer.concat([Buffer.from(`${folder}/a`), Buffer.from('fffe', 'hex'), Buffer.from('.safetensors')]),
        safetensors('x'),
      )
    },
    listed: { 'a\uFFFD\uFFFD.safetensors': { status: 'broken', why: /no UTF-8 text/ } },
  },
  {
    name: 'future',
    make: async (folder) => {
      await writeFiles(folder, { 'a.safetensors': safetensors('x') })
      // Later than any date of JavaScript's, where the file system has such a time.
      await utimes(join(folder, 'a.safetensors'), 9e12, 9e12)
    },
    listed: { 'a.safetensors': { status: 'unknown' } },
  },
  {
    name: 'hub-cache',
    make: async (folder) => {
      const repository = join(folder, 'models--someone--drawer')
      const revision = '0123456789abcdef0123456789abcdef01234567'
      for (const [i, [file, content]] of Object.entries(pipeline()).entries()) {
        await writeFiles(repository, { [`blobs/${i}`]: content })
        const at = join(repository, 'snapshots', revision, file)
        await mkdir(dirname(at), { recursive: true })
        await symlink(join(repository, 'blobs', String(i)), at)
      }
      await writeFiles(repository, { 'refs/main': revision, 'blobs/abc.incomplete': 'x' })
    },
    listed: { 'models--someone--drawer/snapshots/0123456789abcdef0123456789abcdef01234567': { status: 'usable' } },
  },
  {
    name: 'link-inside',
    make: async (folder) => {
      await writeFiles(
        folder,
        under('store/m', pipeline({ 'vae/config.json': { ...(modelFiles()['vae/config.json'] as object), note: 'another' } })),
      )
      await symlink('store/m', join(folder, 'linked'))
    },
    listed: { 'store/m': { status: 'usable' }, linked: { status: 'usable' } },
  },
]

function under(folder: string, content: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(content).map(([file, each]) => [`${folder}/${file}`, each]))
}

/** Makes them all, and what only a running process can be: a socket. */
export async function makeOddModels(root: string): Promise<() => Promise<void>> {
  for (const { name, make } of oddModels) await make(join(root, name))
  const server = await socketAt(join(root, 'socket'))
  return async () => {
    await new Promise((resolve) => server.close(resolve))
    await chmod(join(root, 'unreadable/closed'), 0o700).catch(() => undefined)
    await rm(root, { recursive: true, force: true })
  }
}

/** A socket by a short path, which it must have, and then under the name of a model. */
async function socketAt(folder: string): Promise<Server> {
  await mkdir(folder, { recursive: true })
  const server = createServer()
  const short = join(folder, 's')
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(short, resolve))
  await link(short, join(folder, 'a.safetensors'))
  return server
}
