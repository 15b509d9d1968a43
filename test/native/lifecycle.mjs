/**
 * One way in which a program with a copy under way can end: node lifecycle.mjs ADDON BACKEND SCENARIO. Prints `done`
 * when it came to its end.
 */
import { createRequire } from 'node:module'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'

const [, , path = '', backend = '', scenario = ''] = isMainThread ? process.argv : [null, null, ...workerData]
const addon = createRequire(import.meta.url)(path)
const size = 192 << 20
const gc = /** @type {{ gc?: () => void }} */ (globalThis).gc ?? (() => {})

/** A copy that takes a while, on a memory that nothing here refers to. @param {(done: number) => void} progress */
async function copying(progress) {
  const memory = await addon.open(backend, null)
  const { id } = await memory.allocate(0, size, 'device', 'automatic', 'test', null)
  return memory.write(1, id, 0, new Uint8Array(size).fill(5), false, progress)
}

/** @type {Record<string, () => Promise<void>>} */
const scenarios = {
  async exit() {
    await copying(() => process.exit(3))
  },
  async 'exit-later'() {
    void copying(() => {})
    await pause(40)
    process.exit(4)
  },
  async throw() {
    void copying(() => {})
    await pause(30)
    throw new Error('nobody catches this')
  },
  /** An idle memory keeps no process alive, and what it holds is no reason to crash at the end. */
  async idle() {
    const memory = await addon.open(backend, null)
    for (const kind of ['device', 'upload', 'readback']) await memory.allocate(0, 4 << 20, kind, 'automatic', 'test', null)
  },
  /** Under memory pressure the collector would take an unreferenced memory in the middle of its copy. */
  async collect() {
    let calls = 0
    const copy = copying(() => {
      calls++
      gc()
    })
    const timer = setInterval(gc, 2)
    await copy
    clearInterval(timer)
    if (calls === 0) throw new Error('no progress was told')
  },
  /** What nobody refers to any more gives its memory back. */
  async drop() {
    const rss = () => process.memoryUsage().rss
    await copying(() => {})
    const before = rss()
    for (let i = 0; i < 100 && rss() > before - size / 2; i++) {
      await pause(10)
      gc()
    }
    if (rss() > before - size / 2) throw new Error(`of ${before} bytes ${rss()} are held still`)
  },
  /** Three threads with a memory each; one is ended in the middle of a copy, the others go on. */
  async terminate() {
    const workers = Array.from(
      { length: 3 },
      () => new Worker(fileURLToPath(import.meta.url), { workerData: [path, backend, 'in-worker'] }),
    )
    const ends = workers.map((worker) => new Promise((settle) => worker.on('exit', settle)))
    await Promise.all(workers.map((worker) => new Promise((settle) => worker.once('message', settle))))
    await pause(20)
    await workers[2]?.terminate()
    await Promise.all(workers.slice(0, 2).map((worker) => new Promise((settle) => worker.once('message', settle))))
    for (const worker of workers) await worker.terminate()
    await Promise.all(ends)
  },
  /** Copies without a pause, large and small ones, so that at any moment one runs and one has something to tell. */
  async 'in-worker'() {
    const memory = await addon.open(backend, null)
    const copyOn = async (/** @type {number} */ bytes) => {
      const { id } = await memory.allocate(0, bytes, 'device', 'automatic', 'test', null)
      const source = new Uint8Array(bytes)
      for (let copies = 0; ; copies++) {
        await memory.write(1, id, 0, source, false, () => {})
        if (copies % 100 === 0) parentPort?.postMessage('copied')
      }
    }
    await Promise.all([32 << 20, ...Array(16).fill(4096)].map(copyOn))
  },
  /** Terminated while the driver starts, and soon after. */
  async 'terminate-early'() {
    for (const wait of [0, 1, 5, 20, 60, 80, 100, 120, 140, 160]) {
      const worker = new Worker(fileURLToPath(import.meta.url), { workerData: [path, backend, 'in-worker'] })
      await new Promise((settle) => worker.once('online', settle))
      await pause(wait)
      await worker.terminate()
    }
  },
}

await scenarios[scenario]?.()
if (isMainThread) process.stdout.write('done\n')
