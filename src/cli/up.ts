/** `darkroom up` in a terminal: prints each start, end and restart until the user stops it. */
import { once } from 'node:events'
import { join } from 'node:path'
import { root } from '../config.ts'
import { startSupervisor, type Supervisor, type SupervisorEvent, type SupervisorOptions } from '../supervisor.ts'
import { Exit, say, whisper } from './terminal.ts'

/** Signals within so many ms are one. */
const onceMs = 1000

/** Program and arguments of a supervisor's children. */
export const program = [process.execPath, join(root, 'bin', 'darkroom.mjs')]

export function describeEvent({ what, is, pid, detail, againMs }: SupervisorEvent): string {
  const again = againMs === undefined ? '' : againMs === 0 ? '; again at once' : `; again in ${(againMs / 1000).toFixed(1)} s`
  const process = pid !== undefined && is === 'starting' ? ` (pid ${pid})` : ''
  return `  ${what.padEnd(9)} ${is}${process}${detail ? `: ${detail}` : ''}${again}`
}

/**
 * Starts a supervisor. `asked` resolves at the user's first signal: the caller then stops it in order. A second signal,
 * a second later or more, makes that faster.
 * @throws Exit 130 when it was stopped while it started
 */
export async function superviseHere(
  options: Omit<SupervisorOptions, 'program' | 'signal'>,
): Promise<{ supervisor: Supervisor; asked: Promise<unknown> }> {
  const stop = new AbortController()
  let supervisor: Supervisor | undefined
  let askedAt = 0
  const ask = (): void => {
    if (!stop.signal.aborted) {
      askedAt = performance.now()
      return stop.abort()
    }
    // What a terminal, npm and a container's init pass on of one signal comes several times.
    if (performance.now() - askedAt < onceMs) return
    whisper('Stopping at once.')
    supervisor?.hurry()
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, ask)
  // Whoever started us over a channel is gone: `setup/run.mjs`, and with it npm.
  process.once('disconnect', ask)
  process.channel?.unref()
  const asked = once(stop.signal, 'abort')
  try {
    supervisor = await startSupervisor({ ...options, program, signal: stop.signal })
    return { supervisor, asked }
  } catch (error) {
    throw stop.signal.aborted ? new Exit(130) : error
  }
}

export async function up({ workers, port, gpu }: { workers?: number; port?: number; gpu?: boolean }): Promise<void> {
  const env = {
    ...process.env,
    ...(port !== undefined && { DARKROOM_PORT: String(port) }),
    ...(gpu && !process.env['DARKROOM_DEVICE']?.startsWith('cuda') && { DARKROOM_DEVICE: 'cuda' }),
  }
  const on = (event: SupervisorEvent): void => say(describeEvent(event))
  const { supervisor, asked } = await superviseHere({ env, on, ...(workers !== undefined && { workers }) })
  const { url, config } = supervisor
  say(`\nThe API answers at ${url} (in a browser: the light table; reference: ${url}/docs, queues: ${url}/admin/queues).`)
  say(`Logs are in ${join(config.data, 'logs')}. Try: npx darkroom generate "a red circle left of a blue square on yellow"`)
  say('Ctrl-C stops it; accepted sessions go on with the next start.\n')
  await asked
  await supervisor.stop()
}
