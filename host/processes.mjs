/** Other processes, by their ids. */

/**
 * Whether a process of that id exists. One that belongs to another user is alive, though this process may not signal
 * it.
 * @param {number} pid
 * @param {(pid: number, signal: 0) => unknown} [signal]
 */
export function isAlive(pid, signal = (id, none) => process.kill(id, none)) {
  try {
    signal(pid, 0)
    return true
  } catch (error) {
    return /** @type {NodeJS.ErrnoException} */ (error).code === 'EPERM'
  }
}
