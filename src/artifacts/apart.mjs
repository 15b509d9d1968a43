/** What programs that `apart.ts` runs have in common: how libvips is set up, what they read and what they answer. */
import sharp from 'sharp'

/**
 * libvips with no decoder but these: no other may even look at the bytes.
 * @param {...string} formats as libvips names them: `Png`, `Jpeg` …
 */
export function libvipsFor(...formats) {
  sharp.cache(false)
  sharp.concurrency(1)
  sharp.block({ operation: ['VipsForeignLoad'] })
  sharp.unblock({ operation: formats.map((format) => `VipsForeignLoad${format}`) })
  return sharp
}

/** All of stdin. */
export async function given() {
  const chunks = []
  for await (const chunk of process.stdin) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/**
 * One line of JSON, and what is behind it.
 * @param {object} head
 * @param {...Uint8Array} files
 */
export function answer(head, ...files) {
  process.stdout.write(`${JSON.stringify(head)}\n`)
  for (const file of files) process.stdout.write(file)
}
