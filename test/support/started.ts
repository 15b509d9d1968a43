/**
 * Processes that a test has started, by id. A test that fails between a start and its stop leaves them to the end of
 * the test process, which ends them; vitest ends that one by SIGTERM.
 */
const running = new Set<number>()

function endAll(): void {
  for (const id of running) {
    try {
      process.kill(id, 'SIGKILL')
    } catch {
      // It is gone already.
    }
  }
}

process.on('exit', endAll)
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1))

/** Remembers a process, or with `-id` its whole group, until the returned function is called. */
export function started(id: number): () => void {
  running.add(id)
  return () => void running.delete(id)
}
