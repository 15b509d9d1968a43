/** Small files beside weights, read whole: only regular ones, and no more than a configuration needs. */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'

const maxBytes = 1024 * 1024

/** @throws Error when it is no regular file, or larger than 1 MiB */
export async function readSmall(path: string): Promise<Buffer> {
  // Without this flag the open of a named pipe would wait for who writes into it.
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const { size } = await regular(handle, path)
    if (size > maxBytes) throw new Error(`${path} has ${size} bytes, ${maxBytes} are the most`)
    return await handle.readFile()
  } finally {
    await handle.close()
  }
}

async function regular(handle: Awaited<ReturnType<typeof open>>, path: string): Promise<{ size: number }> {
  const stats = await handle.stat()
  if (!stats.isFile()) throw new Error(`${path} is no regular file`)
  return stats
}
