/**
 * What a model is, by its bytes. The body hash decides a picture and is what sessions are pinned to: of one file, the
 * SHA-256 of its tensors, without header and metadata; of a pipeline's folder, that of its files' names and hashes; of
 * a model that is made of several files, that of their roles and hashes.
 */
import { createHash } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { resolve as resolvePath } from 'node:path'
import { MessageChannel, type MessagePort } from 'node:worker_threads'
import { Piscina } from 'piscina'
import { isIgnored } from './folder-names.ts'
import type { Made, MadeOf } from './made.ts'
import { graphName } from './onnx.ts'
import type { FileState, Found } from './found.ts'

/** Of one file: of its body, of all of it (AutoV2 is its first ten digits), and A1111's first, short one. */
export interface FileHashes {
  body: string
  sha256: string
  short: string
}

/** Of a model; a folder has a body hash alone. */
export interface Identity {
  bodyHash: string
  sha256: string | null
  shortHash: string | null
}

const pipelineParts = ['unet', 'vae', 'text_encoder', 'tokenizer', 'scheduler']
/** Parts of larger pipelines; they come last, so that smaller ones keep the hashes that sessions are pinned to. */
const moreParts = ['transformer', 'text_encoder_2', 'text_encoder_3', 'tokenizer_2', 'tokenizer_3']
/** What the pipeline itself is told; those of several encoders read there what an empty prompt is. */
const pipelineIndex = 'model_index.json'

/** Files that decide pictures: what loaders read, and nothing that tools leave beside it. */
const decides = (path: string): boolean => {
  const name = path.slice(path.lastIndexOf('/') + 1)
  return !isIgnored(name) && /\.(safetensors|json|txt|model|jinja)$/.test(name)
}

/** The files of a model that its identity is made of, in their order. */
export function identityFiles({ isFolder, files, made }: Pick<Found, 'isFolder' | 'files'> & { made?: Made | null }): FileState[] {
  if (made) return made.files
  if (!isFolder) return files.slice(0, 1)
  const inParts = (parts: readonly string[]): FileState[] =>
    parts.flatMap((part) => files.filter(({ path }) => path.startsWith(`${part}/`) && decides(path)))
  const more = inParts(moreParts)
  const index = more.length > 0 ? files.filter(({ path }) => path === pipelineIndex) : []
  const all = [...inParts(pipelineParts), ...more, ...index]
  // Weights with their configuration, which are no pipeline.
  return all.length > 0 ? all : files.filter(({ path }) => decides(path) || path === graphName)
}

/** The identity of a model whose files have these hashes, in the order of `identityFiles`. */
export function identityOf(isFolder: boolean, files: readonly (FileState | MadeOf)[], hashes: readonly FileHashes[]): Identity {
  const [{ body, sha256, short } = { body: '', sha256: '', short: '' }] = hashes
  const isMade = files.some((file) => 'role' in file)
  if (!isFolder && !isMade) return { bodyHash: body, sha256, shortHash: short }
  const whole = createHash('sha256')
  for (const [i, file] of files.entries()) whole.update(`${'role' in file ? file.role : file.path} ${hashes[i]?.body}\n`)
  const bodyHash = whole.digest('hex')
  return isMade ? { bodyHash, sha256, shortHash: short } : { bodyHash, sha256: null, shortHash: null }
}

/** What was read of a file; `odd`: how many numbers of each place are infinite or none. */
export interface Hashed {
  hashes: FileHashes
  state: Omit<FileState, 'path'>
  odd: readonly number[]
}

/** Where numbers of one type lie in a file, as safetensors names types. */
export interface Floats {
  type: string
  begin: number
  end: number
}

interface Question {
  path: string
  /** It is safetensors, whose body begins behind the header. */
  hasHeader: boolean
  floats: readonly Floats[]
}

/** How many files are read at once: more would only make a disk seek. */
const width = Math.min(4, availableParallelism())
/** Paces of a hasher, in KiB a second: as fast as it goes, and not at all. */
const [unlimited, halted] = [0, -1]

/** Hashes files in threads of their own, which are started when they are needed. */
export class Hasher {
  readonly #threads: Piscina<Question & { port: MessagePort }, Hashed>
  /** The pace, which the threads read after each piece. */
  readonly #pace = new Int32Array(new SharedArrayBuffer(4))

  /** `most`: files that are read at once. */
  constructor(most = width) {
    this.#threads = new Piscina({
      filename: new URL('./hash-thread.mjs', import.meta.url).href,
      // Its own flags: the thread needs no compiler, and loads faster without.
      execArgv: [],
      workerData: { pace: this.#pace },
      minThreads: 0,
      maxThreads: most,
      idleTimeout: 5000,
      closeTimeout: 1000,
    })
  }

  /** Bytes a second of each thread from now on; 0 halts it, Infinity is as fast as it goes. */
  set pace(bytes: number) {
    const pace = bytes === 0 ? halted : bytes === Infinity ? unlimited : Math.max(1, Math.min(2 ** 30, Math.round(bytes / 1024)))
    if (Atomics.exchange(this.#pace, 0, pace) !== pace) Atomics.notify(this.#pace, 0)
  }

  /**
   * Reads the file whole. `progress` is told how many bytes are done; `floats`, in the order of the file, are looked
   * through for numbers that are none. `isWhole`: a file whose ending promises a header and that has none.
   * @throws Error when it cannot be read, is no regular file, or changes meanwhile; when `close` is called
   */
  async hash(
    path: string,
    progress: (done: number) => void = () => undefined,
    floats: readonly Floats[] = [],
    isWhole = false,
  ): Promise<Hashed> {
    const { port1, port2 } = new MessageChannel()
    port1.on('message', progress).unref()
    try {
      const hasHeader = !isWhole && /\.(safetensors|sft)$/i.test(path)
      return await this.#threads.run({ path, hasHeader, floats, port: port2 }, { transferList: [port2] })
    } finally {
      port1.close()
    }
  }

  /** Ends the threads; what is asked is rejected. */
  close(): Promise<void> {
    return this.#threads.destroy()
  }
}

/** Where a file of a model is; one that it is made of may lie anywhere. */
export const pathOf = (model: string, file: FileState): string => resolvePath(model, file.path)
