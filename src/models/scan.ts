/**
 * Models on disk: what discovery finds in the configured folders, by header and configuration alone, never by
 * unpickling. So far: diffusers folders with a UNet. A model is pinned in a session by name and body hash, which
 * changes with the weights only.
 */
import { createHash } from 'node:crypto'
import { open, readFile, readdir, realpath, stat } from 'node:fs/promises'
import { basename, join, relative, sep } from 'node:path'
import { z } from 'zod'
import { modelError } from './errors.ts'
import { families, type Family } from './families.ts'

/** Settings a model draws well with, for requests that leave them out. */
const Recommended = z.object({ width: z.int(), height: z.int(), steps: z.int(), guidance: z.number(), sampler: z.string() }).partial()

export interface Model {
  /** Name a request uses: the folder's own. */
  id: string
  /** SHA-256 over the weights, without headers and metadata, and the configuration; 64 hex digits. */
  bodyHash: string
  path: string
  family: Family
  /** Pixels of one latent cell's side. */
  scale: number
  recommended: Required<z.infer<typeof Recommended>>
  /** Words it was trained on, where its manifest lists them. */
  vocabulary: Record<string, string[]>
}

const Manifest = z.looseObject({
  family: z.enum(families).default('sd1'),
  recommended: Recommended.optional(),
  vocabulary: z.record(z.string(), z.array(z.string())).optional(),
})

/**
 * Finds every model under the folders; of two with one name the first folder's wins. Folders that do not exist are
 * passed over.
 */
export async function discoverModels(folders: string[]): Promise<Model[]> {
  const found = new Map<string, Model>()
  for (const folder of folders) {
    const real = await realpath(folder).catch(() => undefined)
    if (real === undefined) continue
    for (const entry of await readdir(real, { withFileTypes: true })) {
      // A link that leads out of the configured folder is not followed.
      const path = await realpath(join(real, entry.name))
      if (!path.startsWith(real + sep) || found.has(basename(path))) continue
      if (await isFile(join(path, 'model_index.json'))) found.set(basename(path), await readModel(path))
    }
  }
  return [...found.values()]
}

/** @throws DarkroomError `model.corrupt` when a file that must be there is missing or is no safetensors. */
export async function readModel(path: string): Promise<Model> {
  const [unet, vae] = await Promise.all([readJson(join(path, 'unet', 'config.json')), readJson(join(path, 'vae', 'config.json'))])
  const scale = 2 ** (z.looseObject({ block_out_channels: z.array(z.number()) }).parse(vae).block_out_channels.length - 1)
  const native = z.looseObject({ sample_size: z.number() }).parse(unet).sample_size * scale
  const manifest = Manifest.parse((await isFile(join(path, 'manifest.json'))) ? await readJson(join(path, 'manifest.json')) : {})
  return {
    id: basename(path),
    bodyHash: await hashBody(path),
    path,
    family: manifest.family,
    scale,
    recommended: { width: native, height: native, steps: 20, guidance: native <= 128 ? 3 : 7, sampler: 'DDIM', ...manifest.recommended },
    vocabulary: manifest.vocabulary ?? {},
  }
}

/** What decides a picture: the tensors of each weights file, and the configuration and vocabulary beside them. */
async function hashBody(folder: string): Promise<string> {
  const whole = createHash('sha256')
  for (const part of ['unet', 'vae', 'text_encoder', 'tokenizer', 'scheduler']) {
    const files = await readdir(join(folder, part)).catch((error: Error) => {
      throw modelError('corrupt', `${folder} has no ${part}/`, { cause: error })
    })
    for (const file of files.toSorted()) {
      const path = join(folder, part, file)
      whole.update(`${relative(folder, path)} ${await hashFile(path)}\n`)
    }
  }
  return whole.digest('hex')
}

/** What files hashed to, by path, size and time of change: gigabytes are read once, not at every look at the folder. */
const hashes = new Map<string, { state: string; sha256: string }>()

async function hashFile(path: string): Promise<string> {
  const { size, mtimeMs } = await stat(path)
  const state = `${size} ${mtimeMs}`
  const known = hashes.get(path)
  if (known?.state === state) return known.sha256
  const hash = createHash('sha256')
  const start = path.endsWith('.safetensors') ? await headerLength(path) : 0
  const handle = await open(path, 'r')
  for await (const chunk of handle.createReadStream({ start })) hash.update(chunk as Buffer)
  const sha256 = hash.digest('hex')
  hashes.set(path, { state, sha256 })
  return sha256
}

/** Bytes before the tensors: 8 for the length, then the header (safetensors format, README of the project). */
async function headerLength(path: string): Promise<number> {
  const handle = await open(path, 'r')
  try {
    const size = (await handle.stat()).size
    const head = Buffer.alloc(8)
    await handle.read(head, 0, 8, 0)
    const header = size >= 8 ? head.readBigUInt64LE() : 0n
    if (header === 0n || header > BigInt(size - 8) || header > 100_000_000n) throw modelError('corrupt', `${path} is no safetensors file`)
    return 8 + Number(header)
  } finally {
    await handle.close()
  }
}

const isFile = async (path: string): Promise<boolean> => (await stat(path).catch(() => undefined))?.isFile() ?? false

async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'))
  } catch (error) {
    throw modelError('corrupt', `${path} cannot be read as JSON`, { cause: error })
  }
}
