import { pino, type Logger } from 'pino'

export type { Logger }

/**
 * JSON lines on stderr: stdout belongs to the output of a command for its user.
 * Cancellations are never logged as errors; keys and prompts are never logged at all.
 */
export function createLog(level: string, role: string): Logger {
  return pino(
    { level, base: { role, pid: process.pid }, redact: ['*.key', '*.authorization', 'authorization', 'key'] },
    pino.destination({ fd: 2, sync: true }),
  )
}
