/**
 * A file that is locked as long as somebody has it open: this process, or one that inherits its descriptor. The kernel
 * keeps the lock with the open file, so it ends with its last holder, however that dies, and it holds for every process
 * that opens the same file, whatever its user, container or PID namespace. It does not hold on a network file system
 * without locks, nor between two machines or virtual machines that share a folder without passing locks on.
 */
import { closeSync, constants, fstatSync, openSync, statSync } from 'node:fs'
import { tryLock } from 'fs-native-extensions'

export interface HeldFile {
  /** To be handed to a child process, which then holds the lock as well. */
  readonly fd: number
  /** Gives this process' part in the lock up. */
  close(): void
}

/**
 * Opens the file, made with mode 0600 when it is not there, and locks it; undefined when another has locked it.
 * @throws NodeJS.ErrnoException when it cannot be opened, `ELOOP` for a link, or its file system has no locks
 */
export function holdFile(path: string): HeldFile | undefined {
  for (;;) {
    const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
    try {
      if (!tryLock(fd)) {
        closeSync(fd)
        return undefined
      }
      // Who held it before may have removed it between the opening and the lock.
      if (statSync(path, { throwIfNoEntry: false })?.ino === fstatSync(fd).ino) return { fd, close: () => closeSync(fd) }
    } catch (error) {
      closeSync(fd)
      throw error
    }
    closeSync(fd)
  }
}
