/** Preloaded into a process: each read of a MiB and more takes this long besides, as from a slow disk. */
import { open } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { isMainThread } from 'node:worker_threads'

const delayMs = 200

// Threads hash, and take no longer.
if (isMainThread) {
  const handle = await open('/dev/null')
  const prototype = Object.getPrototypeOf(handle)
  await handle.close()
  const { read } = prototype
  /** @param {any[]} args */
  prototype.read = async function (...args) {
    if (args[0]?.byteLength >= 2 ** 20) await delay(delayMs)
    return read.apply(this, args)
  }
}
