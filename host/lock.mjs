/**
 * One holder at a time, and a place for sockets. The lock is a listening socket: it ends with its holder, however that
 * dies. On Linux it is an abstract one, which leaves no file behind; elsewhere a file that a dead holder leaves is
 * taken over.
 */
import { createHash } from 'node:crypto'
import { lstatSync, mkdirSync, realpathSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { basename, dirname, join, resolve } from 'node:path'

/** A Unix socket's address has room for 108 bytes on Linux and 104 on macOS, the last one a zero. */
const longestPath = 103

/** @param {string} path @returns {string} without links, also where its last parts do not exist yet */
function realPath(path) {
  try {
    return realpathSync(path)
  } catch {
    const parent = dirname(path)
    return parent === path ? path : join(realPath(parent), basename(path))
  }
}

/** @param {string} folder @returns {string} the same for every path that leads to the folder */
const hashOf = (folder) =>
  createHash('sha256')
    .update(realPath(resolve(folder)))
    .digest('hex')
    .slice(0, 12)

const uid = process.getuid?.() ?? 0

/**
 * Folder for the sockets that belong to `folder`, made with mode 0700: `$XDG_RUNTIME_DIR/darkroom-<hash>` or
 * `/tmp/darkroom-<uid>-<hash>`.
 * @param {string} folder
 * @throws Error when the folder belongs to another user
 */
export function socketFolder(folder) {
  const base = process.env['XDG_RUNTIME_DIR']
  const short = join('/tmp', `darkroom-${uid}-${hashOf(folder)}`)
  const wished = base ? join(base, `darkroom-${hashOf(folder)}`) : short
  let path = Buffer.byteLength(join(wished, 'redis.sock')) <= longestPath ? wished : short
  try {
    mkdirSync(path, { recursive: path === short, mode: 0o700 })
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'EEXIST') {
      // A runtime folder that is named but not there, as after `su`.
      path = short
      mkdirSync(path, { recursive: true, mode: 0o700 })
    }
  }
  const found = lstatSync(path)
  if (!found.isDirectory() || found.uid !== uid || (found.mode & 0o077) !== 0) {
    throw new Error(`${path} must be a folder of this user's own with mode 0700; remove it and try again`)
  }
  return path
}

/** @param {string} folder @param {string} purpose */
function addressOf(folder, purpose) {
  if (process.platform === 'linux') return `\0darkroom-${uid}-${purpose}-${hashOf(folder)}`
  return join(socketFolder(folder), `${purpose}.lock`)
}

/**
 * What the holder says about itself, or undefined when the lock is free.
 * @param {string} folder @param {string} purpose
 * @returns {Promise<Record<string, unknown> | undefined>}
 */
export function askHolder(folder, purpose) {
  return new Promise((settle) => {
    const socket = connect(addressOf(folder, purpose))
    let text = ''
    const timer = setTimeout(() => socket.destroy(), 2000)
    socket.setEncoding('utf8')
    socket.on('data', (chunk) => {
      text += chunk
      if (text.endsWith('\n')) socket.end()
    })
    let isListening = false
    socket.on('connect', () => (isListening = true))
    socket.on('error', () => {})
    socket.on('close', () => {
      clearTimeout(timer)
      if (!isListening) return settle(undefined)
      try {
        settle(JSON.parse(text))
      } catch {
        settle({})
      }
    })
  })
}

/**
 * Takes the lock `purpose` of a folder, or says who has it. `info()` is what others are told.
 * @param {string} folder @param {string} purpose @param {() => Record<string, unknown>} [info]
 * @returns {Promise<{ release: () => Promise<void> } | { heldBy: Record<string, unknown> }>}
 */
export async function takeLock(folder, purpose, info = () => ({})) {
  const address = addressOf(folder, purpose)
  for (let attempt = 0; ; attempt++) {
    const server = createServer((socket) => {
      socket.on('error', () => {})
      socket.end(`${JSON.stringify({ pid: process.pid, ...info() })}\n`)
    })
    server.unref()
    const taken = await new Promise((settle, fail) => {
      server.once('error', (/** @type {NodeJS.ErrnoException} */ error) => (error.code === 'EADDRINUSE' ? settle(false) : fail(error)))
      server.listen(address, () => settle(true))
    })
    if (taken) return { release: () => new Promise((done) => server.close(() => done())) }
    const heldBy = await askHolder(folder, purpose)
    if (heldBy) return { heldBy }
    // Its holder has just let go; where the lock is a file, it may have died and left it.
    if (attempt > 20) throw new Error(`the lock ${JSON.stringify(address)} can neither be taken nor asked`)
    if (!address.startsWith('\0')) rmSync(address, { force: true })
  }
}

/**
 * Runs `work` while holding the lock; waits for its holder, and tells `waiting` once, with ` (pid 123)` where the
 * holder says it.
 * @template T
 * @param {string} folder
 * @param {string} purpose
 * @param {() => Promise<T>} work
 * @param {(holder: string) => void} [waiting]
 * @returns {Promise<T>}
 */
export async function whileHolding(folder, purpose, work, waiting) {
  for (let told = false; ;) {
    const lock = await takeLock(folder, purpose)
    if ('release' in lock) {
      try {
        return await work()
      } finally {
        await lock.release()
      }
    }
    const { pid } = lock.heldBy
    if (!told) waiting?.(typeof pid === 'number' ? ` (pid ${pid})` : '')
    told = true
    await new Promise((resume) => setTimeout(resume, 200))
  }
}
