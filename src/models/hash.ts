/**
 * What a model is, by its bytes. The body hash decides a picture and is what sessions are pinned to: of one file, the
 * SHA-256 of its tensors, without header and metadata; of a pipeline's folder, that of its files' names and hashes.
 */
import { createHash } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { isIgnored } from './folder-names.ts'
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

/** Files that decide pictures: what loaders read, and nothing that tools leave beside it. */
const decides = (path: string): boolean => {
  const name = path.slice(path.lastIndexOf('/') + 1)
  return !isIgnored(name) && /\.(safetensors|json|txt|model)$/.test(name)
}

/** The files of a model that its identity is made of, in their order. */
export function identityFiles({ isFolder, files }: Pick<Found, 'isFolder' | 'files'>): FileState[] {
  if (!isFolder) return files.slice(0, 1)
  const inParts = pipelineParts.flatMap((part) => files.filter(({ path }) => path.startsWith(`${part}/`) && decides(path)))
  // Weights with their configuration, which are no pipeline.
  return inParts.length > 0 ? inParts : files.filter(({ path }) => decides(path))
}

/** The identity of a model whose files have these hashes, in the order of `identityFiles`. */
export function identityOf(isFolder: boolean, files: readonly FileState[], hashes: readonly FileHashes[]): Identity {
  if (!isFolder) {
    const [{ body, sha256, short } = { body: '', sha256: '', short: '' }] = hashes
    return { bodyHash: body, sha256, shortHash: short }
  }
  const whole = createHash('sha256')
  for (const [i, { path }] of files.entries()) whole.update(`${path} ${hashes[i]?.body}\n`)
  return { bodyHash: whole.digest('hex'), sha256: null, shortHash: null }
}

interface Asked {
  path: string
  progress: (done: number) => void
  resolve: (answer: { hashes: FileHashes; state: Omit<FileState, 'path'> }) => void
  reject: (error: Error) => void
}

type Answer = { id: number } & ({ done: number } | { hashes: FileHashes; state: Omit<FileState, 'path'> } | { problem: string })

interface Thread {
  worker: Worker
  /** What it reads now. */
  asked: number | undefined
}

/** How many files are read at once: more would only make a disk seek. */
const width = Math.min(4, availableParallelism())

/** Hashes files in threads of their own, which are started when they are needed. */
export class Hasher {
  readonly #threads: Thread[] = []
  readonly #asked = new Map<number, Asked>()
  readonly #queue: number[] = []
  #last = 0
  #isClosed = false

  /**
   * Reads the file whole. `progress` is told how many bytes are done.
   * @throws Error when it cannot be read, is no regular file, or changes meanwhile
   */
  hash(path: string, progress: (done: number) => void = () => undefined): Promise<{ hashes: FileHashes; state: Omit<FileState, 'path'> }> {
    if (this.#isClosed) return Promise.reject(new Error('nothing is hashed any more: this process ends'))
    return new Promise((resolve, reject) => {
      const id = ++this.#last
      this.#asked.set(id, { path, progress, resolve, reject })
      this.#queue.push(id)
      this.#next()
    })
  }

  #next(): void {
    while (this.#queue.length > 0) {
      const thread = this.#threads.find(({ asked }) => asked === undefined) ?? (this.#threads.length < width ? this.#start() : undefined)
      if (!thread) return
      const id = this.#queue.shift() as number
      const asked = this.#asked.get(id)
      if (!asked) continue
      thread.asked = id
      thread.worker.postMessage({ id, path: asked.path, hasHeader: /\.(safetensors|sft)$/i.test(asked.path) })
    }
  }

  #start(): Thread {
    // Its own flags: the thread needs no compiler, and loads faster without.
    const thread: Thread = { worker: new Worker(new URL('./hash-thread.mjs', import.meta.url), { execArgv: [] }), asked: undefined }
    thread.worker.unref()
    thread.worker.on('message', (answer: Answer) => {
      const asked = this.#asked.get(answer.id)
      if ('done' in answer) {
        asked?.progress(answer.done)
        return
      }
      this.#asked.delete(answer.id)
      thread.asked = undefined
      if ('hashes' in answer) asked?.resolve(answer)
      else asked?.reject(new Error(answer.problem))
      this.#next()
    })
    thread.worker.on('error', (error) => {
      this.#threads.splice(this.#threads.indexOf(thread), 1)
      if (thread.asked === undefined) return
      this.#asked.get(thread.asked)?.reject(error)
      this.#asked.delete(thread.asked)
    })
    this.#threads.push(thread)
    return thread
  }

  /** Ends the threads; what is asked is rejected. */
  async close(): Promise<void> {
    this.#isClosed = true
    for (const { reject } of this.#asked.values()) reject(new Error('this process ends'))
    this.#asked.clear()
    await Promise.all(this.#threads.map(({ worker }) => worker.terminate()))
  }
}

/** Where a file of a model is. */
export const pathOf = (model: string, file: FileState): string => (file.path === '' ? model : join(model, file.path))
