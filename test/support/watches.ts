/** Processes that can watch no file, as those of a user who watches as many as the system allows. */
import { spawnSync } from 'node:child_process'

const script = 'echo 0 > /proc/sys/user/max_inotify_watches && exec "$@"'

/** Program and arguments that run what follows them in a namespace of their own, in which no watch is left. */
export const withoutWatches = ['unshare', '--user', '--map-root-user', 'sh', '-c', script, 'sh']

/** Whether the machine allows that. */
export const hasNoWatches =
  process.platform === 'linux' && spawnSync(withoutWatches[0] ?? '', [...withoutWatches.slice(1), 'true']).status === 0
