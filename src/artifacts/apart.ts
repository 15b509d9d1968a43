/**
 * Work on a picture in a process of its own: what a broken or hostile file does to its decoder stays in there, what
 * takes long keeps no thread from others, and both can be ended at once.
 */
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

export interface Apart {
  /** Plain JavaScript, which answers as `apart.mjs` does. */
  program: URL
  args: readonly string[]
  /** What it reads from stdin. */
  input: Uint8Array
  limitMs: number
  signal?: AbortSignal
}

export interface ApartAnswer {
  /** Its first line, as JSON. */
  head: unknown
  /** What is behind it. */
  body: Buffer
}

/** @throws Error that says how it ended without an answer */
export async function runApart({ program, args, input, limitMs, signal }: Apart): Promise<ApartAnswer> {
  // It needs no setting, and sees no secret.
  const child = spawn(process.execPath, [fileURLToPath(program), ...args], { env: {}, stdio: ['pipe', 'pipe', 'pipe'] })
  let isLate = false
  const end = (): void => void child.kill('SIGKILL')
  const timer = setTimeout(() => {
    isLate = true
    end()
  }, limitMs)
  signal?.addEventListener('abort', end)
  if (signal?.aborted) end()
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, by) => resolve({ code, signal: by }))
  })
  // It may end without having read all of it.
  child.stdin.on('error', () => undefined).end(input)
  const [output, said, how] = await Promise.all([collected(child.stdout), collected(child.stderr), ended]).finally(() => {
    clearTimeout(timer)
    signal?.removeEventListener('abort', end)
  })
  if (isLate) throw new Error(`it takes longer than ${limitMs / 1000} s`)
  const lineEnd = output.indexOf('\n')
  if (lineEnd === -1 || how.code !== 0)
    throw new Error(`its process ended with ${how.signal ?? how.code}: ${said.toString('utf8').trim().slice(-300)}`)
  return { head: JSON.parse(output.toString('utf8', 0, lineEnd)) as unknown, body: output.subarray(lineEnd + 1) }
}

async function collected(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks)
}
