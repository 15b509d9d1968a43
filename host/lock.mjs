/**
 * One holder at a time among the processes of this user, and a word with it. The lock is a listening socket in a folder
 * of the user's own, so it ends with its holder, however that dies. It does not reach into other containers: what must
 * hold there as well is a locked file (src/held-file.ts).
 *
 * Every contender listens on a socket of its own, whose name is never used again, and then looks at those of the
 * others. Whoever looks later sees the other, so two never hold at once; of two that still look, the smaller name goes
 * first.
 */
import { createHash, randomUUID } from 'node:crypto'
import { readdirSync, realpathSync, renameSync, rmSync, rmdirSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { basename, dirname, join, resolve } from 'node:path'
import { isOwnFolder, ownFolder, uid } from './own-folder.mjs'

/** A Unix socket's address has room for 108 bytes on Linux and 104 on macOS, the last one a zero. */
const longestPath = 103
/** How long a holder may take to answer, ms. */
const answerMs = 2000
/** Between two looks at another contender, ms. */
const lookMs = 20

/** A name for one contender; no other socket has a longer one. @param {string} place @param {string} purpose */
const socketName = (place, purpose) => join(place, `${digest(purpose)}.${randomUUID().slice(0, 8)}`)

/** @param {string} path @returns {string} without links, also where its last parts do not exist yet */
function realPath(path) {
  try {
    return realpathSync(path)
  } catch {
    const parent = dirname(path)
    return parent === path ? path : join(realPath(parent), basename(path))
  }
}

/** @param {string} text */
const digest = (text) => createHash('sha256').update(text).digest('hex').slice(0, 12)

/** @param {string} folder @returns {string} the same for every path that leads to the folder */
const hashOf = (folder) => digest(realPath(resolve(folder)))

/**
 * Where the sockets that belong to `folder` may be: `darkroom-<hash>` in the runtime folder, whether the environment
 * names it or not, else `/tmp/darkroom-<uid>-<hash>`.
 * @param {string} folder @returns {string[]} the preferred one first
 */
function socketFolders(folder) {
  const runtime = [process.env['XDG_RUNTIME_DIR'], `/run/user/${uid}`].filter((base) => base !== undefined && base !== '')
  const wished = [...new Set(runtime.map((base) => join(base ?? '', `darkroom-${hashOf(folder)}`)))]
  const short = wished.filter((path) => Buffer.byteLength(socketName(path, '')) <= longestPath)
  return [...short, join('/tmp', `darkroom-${uid}-${hashOf(folder)}`)]
}

/**
 * The folder for the sockets that belong to `folder`, made with mode 0700.
 * @param {string} folder
 * @throws BadPlace when somebody else made it, or others may open it
 */
export function socketFolder(folder) {
  const places = socketFolders(folder)
  for (const place of places.slice(0, -1)) {
    try {
      return ownFolder(place)
    } catch (error) {
      // A runtime folder that is named but not there, as after `su`, or that is another user's.
      if (!['ENOENT', 'EACCES', 'EPERM', 'EROFS'].includes(/** @type {NodeJS.ErrnoException} */ (error).code ?? '')) throw error
    }
  }
  return ownFolder(places.at(-1) ?? '')
}

/**
 * The sockets that contend for a lock, wherever they are.
 * @param {string} folder @param {string} purpose
 * @throws BadPlace
 */
const contenders = (folder, purpose) =>
  socketFolders(folder)
    .filter((place) => isThere(place))
    .flatMap((place) =>
      namesIn(place)
        .filter((name) => name.startsWith(`${digest(purpose)}.`))
        .map((name) => join(place, name)),
    )

/** @param {string} place @returns {string[]} empty when its last user has just removed it */
function namesIn(place) {
  try {
    return readdirSync(place)
  } catch {
    return []
  }
}

/** @param {string} place @throws BadPlace */
function isThere(place) {
  try {
    return isOwnFolder(place)
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === 'EACCES') return false
    throw error
  }
}

/** @typedef {{ holds: boolean } & Record<string, unknown>} Answer */

/**
 * What the process behind a socket says, or undefined when there is none. One that does not answer holds the lock: it
 * may be stopped.
 * @param {string} path @returns {Promise<Answer | undefined>}
 */
function ask(path) {
  return new Promise((settle) => {
    const socket = connect(path)
    let text = ''
    const timer = setTimeout(() => socket.destroy(), answerMs)
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
        settle({ holds: true })
      }
    })
  })
}

/**
 * What the holder says about itself, or undefined when the lock is free.
 * @param {string} folder @param {string} purpose
 * @returns {Promise<Record<string, unknown> | undefined>}
 * @throws BadPlace when somebody else could have put a holder there
 */
export async function askHolder(folder, purpose) {
  for (const path of contenders(folder, purpose)) {
    const answer = await ask(path)
    if (answer?.holds) return answer
  }
  return undefined
}

/**
 * Takes the lock `purpose` of a folder, or says who has it. `info()` is what others are told; whoever may open the
 * socket hears it, so it names no secret.
 * @param {string} folder @param {string} purpose @param {() => Record<string, unknown>} [info]
 * @param {number} [tries] how often it may find its folder gone
 * @returns {Promise<{ release: () => Promise<void> } | { heldBy: Record<string, unknown> }>}
 * @throws BadPlace
 */
export async function takeLock(folder, purpose, info = () => ({}), tries = 50) {
  const place = socketFolder(folder)
  const own = socketName(place, purpose)
  let holds = false
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.end(`${JSON.stringify({ pid: process.pid, ...info(), holds })}\n`)
  })
  server.unref()
  // A socket that is bound but does not listen yet looks dead: it gets its name when it listens.
  const part = join(place, `part-${randomUUID().slice(0, 8)}`)
  try {
    await new Promise((settle, fail) => {
      server.once('error', fail)
      server.listen(part, () => settle(undefined))
    })
    renameSync(part, own)
  } catch (error) {
    server.close()
    // The last user of the folder has just removed it, which `listen` tells as EACCES; maybe it is there again.
    if (tries > 0 && /EACCES|ENOENT/.test(String(error))) return takeLock(folder, purpose, info, tries - 1)
    throw error
  }
  const release = () =>
    new Promise((/** @type {(value: void) => void} */ done) => {
      rmSync(own, { force: true })
      try {
        rmdirSync(place)
      } catch {
        // Others have sockets in it.
      }
      server.close(() => done())
    })
  try {
    for (const path of contenders(folder, purpose)) {
      while (path !== own) {
        const other = await ask(path)
        if (other?.holds || (other && path < own)) {
          await release()
          // The other one has not won yet either: who asks again hears of the holder.
          return other.holds ? { heldBy: other } : await takeLock(folder, purpose, info)
        }
        if (!other) {
          rmSync(path, { force: true })
          break
        }
        await new Promise((resume) => setTimeout(resume, lookMs))
      }
    }
  } catch (error) {
    await release()
    throw error
  }
  holds = true
  return { release }
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
