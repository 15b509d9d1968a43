/** What tests of containers need of the machine: namespaces that a user may make. */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'

const works = (...args: string[]): boolean => spawnSync('unshare', [...args, 'true']).status === 0

/** A user, PID, and mount namespace of one's own. */
export const canUnshare = works('--user', '--map-root-user', '--pid', '--fork', '--mount', '--mount-proc')

/** The arguments of `unshare` for a process 1 with its own `/proc`. */
export const ownProcesses = ['--user', '--map-root-user', '--pid', '--fork', '--mount', '--mount-proc', '--kill-child']

/** The arguments of `unshare` for a user that no list of users knows, with this user's rights. */
export const unknownUser = ['--user', '--map-user=54321', '--map-group=54321']
export const canBeUnknown = works(...unknownUser)

/** Processes whose environment holds this text, a data folder for instance; zombies do not count. */
export function processesWith(text: string): number[] {
  return readdirSync('/proc').flatMap((pid) => {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return []
    try {
      const state = /^State:\s+(\w)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
      return state !== 'Z' && readFileSync(`/proc/${pid}/environ`, 'utf8').includes(text) ? [Number(pid)] : []
    } catch {
      return []
    }
  })
}
