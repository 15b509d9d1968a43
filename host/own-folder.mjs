/**
 * Folders that nobody else may have made or may write to. Whatever lies in `/tmp`, `/dev/shm` or a runtime folder has a
 * name that others can guess: before it is used, its owner and its mode are looked at, and no link is followed.
 */
import { lstatSync, mkdirSync, realpathSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'

/** This user's number; 0 where there are none. */
export const uid = process.getuid?.() ?? 0

/** A place that cannot be used, in a sentence for its user: shown without a stack. */
export class BadPlace extends Error {}

/** @param {string} path @param {string} fault @param {string} [remedy] */
const unsafe = (path, fault, remedy = 'Remove it, or have its owner or root remove it, then try again.') =>
  new BadPlace(`${path} ${fault}: another user of this machine could read or change what is kept there. ${remedy}`)

/** @param {number} owner */
const whose = (owner) => (owner === 0 ? 'root' : `the user with number ${owner}`)

/**
 * Checks that a folder is this user's own, with mode 0700, and no link. False when there is nothing of that name.
 * @param {string} path
 * @throws BadPlace
 */
export function isOwnFolder(path) {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (!found) return false
  if (found.isSymbolicLink()) throw unsafe(path, 'is a link, not a folder')
  if (!found.isDirectory()) throw unsafe(path, 'is no folder')
  if (found.uid !== uid) throw unsafe(path, `belongs to ${whose(found.uid)}, not to this user (${uid})`)
  if ((found.mode & 0o077) !== 0) throw unsafe(path, `has mode ${(found.mode & 0o777).toString(8).padStart(4, '0')}, not 0700`)
  return true
}

/**
 * The folder, made with mode 0700 when it is not there; that of its parent must be there. What stands above it may be
 * writable for others only where they cannot rename what is ours, as in `/tmp`.
 * @param {string} path
 * @returns {string} with the parent's links resolved
 * @throws BadPlace
 */
export function ownFolder(path) {
  const parent = realpathSync(dirname(path))
  checkShared(parent)
  const own = join(parent, basename(path))
  try {
    mkdirSync(own, { mode: 0o700 })
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'EEXIST') throw error
  }
  isOwnFolder(own)
  return own
}

/** @param {string} path @throws BadPlace when others could rename what lies in it */
function checkShared(path) {
  const { uid: owner, mode } = statSync(path)
  if (uid !== 0 && owner !== uid && owner !== 0) throw unsafe(path, `belongs to ${whose(owner)}`, 'Choose another place.')
  if ((mode & 0o002) !== 0 && (mode & 0o1000) === 0)
    throw unsafe(path, 'can be written by everybody, and has no sticky bit', 'Choose another place.')
}

/**
 * Checks a folder that its user has chosen: it may be shared with a group, but not with everybody, and nobody but root
 * or this user owns it. Root itself may work in the folder of any user.
 * @param {string} path @param {string} setting which chooses it
 * @throws BadPlace
 */
export function checkChosen(path, setting) {
  const { uid: owner, mode } = statSync(path)
  const remedy = `Choose a folder of your own with ${setting}, or correct its owner and mode.`
  if (uid !== 0 && owner !== uid && owner !== 0) throw unsafe(path, `belongs to ${whose(owner)}, not to this user (${uid})`, remedy)
  if ((mode & 0o002) !== 0) throw unsafe(path, 'can be written by everybody', remedy)
}
