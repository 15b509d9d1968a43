import { writeSync } from 'node:fs'
import { pino, type Logger } from 'pino'

export type { Logger }

/** How often, and for how long, a line waits for a reader that is slow, ms. */
const slowReader = { pauseMs: 5, patienceMs: 2000 }

/**
 * A file of log lines. A line that cannot be written, because its disk is full or its reader is gone, is dropped and
 * counted: the work goes on without its log.
 */
export class LogFile {
  readonly #fd: number
  /** Lines dropped so far. */
  dropped = 0
  /** Whether a line was cut off: the next one begins on a line of its own. */
  #isTorn = false

  constructor(fd: number) {
    this.#fd = fd
  }

  /** Never throws. */
  write(line: string): void {
    const bytes = Buffer.from(this.#isTorn ? `\n${line}` : line)
    let done = 0
    const until = performance.now() + slowReader.patienceMs
    while (done < bytes.byteLength) {
      try {
        done += writeSync(this.#fd, bytes, done)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || performance.now() > until) break
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, slowReader.pauseMs)
      }
    }
    if (done === bytes.byteLength) this.#isTorn = false
    else {
      this.dropped++
      this.#isTorn ||= done > 0
    }
  }
}

/** The log of this process: stderr, because stdout belongs to the output of a command for its user. */
export const logFile = new LogFile(2)

/** JSON lines. Cancellations are never logged as errors; keys and prompts are never logged at all. */
export function createLog(level: string, role: string): Logger {
  return pino({ level, base: { role, pid: process.pid }, redact: ['*.key', '*.authorization', 'authorization', 'key'] }, logFile)
}
