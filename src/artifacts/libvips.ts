/** libvips in this process, for bytes that are our own: what strangers send is decoded in a process of its own. */

/** Loaded when it is first used: most processes show no picture. */
async function load() {
  const { default: sharp } = await import('sharp')
  // Small pictures are a matter of milliseconds: no pool of threads, no cache of what is never asked for again.
  sharp.concurrency(1)
  sharp.cache(false)
  return sharp
}
let loading: ReturnType<typeof load> | undefined

export const libvips = (): ReturnType<typeof load> => (loading ??= load())
