/** `darkroom top`: queue, workers and sessions, redrawn in place on a terminal; once, in plain lines, without one. */
import { setTimeout as delay } from 'node:timers/promises'
import type { DarkroomClient, Session, Status, Worker } from '../client/index.ts'
import { connectApi, type ConnectionOptions } from './connection.ts'
import { duration, percent } from './progress.ts'
import { inline, safe, say, sayJson, table } from './terminal.ts'

const open = ['running', 'pausing', 'paused', 'queued'] as const satisfies Status[]
/** Sessions of each status that are asked for. */
const mostSessions = 50

interface Farm {
  workers: Worker[]
  sessions: Session[]
  /** There are more than `mostSessions` of this status. */
  more: ReadonlySet<Status>
}

async function look(client: DarkroomClient): Promise<Farm> {
  const [workers, ...pages] = await Promise.all([
    client.workers(),
    ...open.map((status) => client.sessions({ status, limit: mostSessions })),
  ])
  return {
    workers,
    sessions: pages.flatMap(({ sessions }) => sessions),
    more: new Set(open.filter((_, i) => (pages[i]?.next ?? null) !== null)),
  }
}

/** Lines of one look, `rows` at most. */
function lines({ workers, sessions, more }: Farm, now: number, rows: number, columns: number): string[] {
  const counts = open.map((status) => {
    const count = sessions.filter((session) => session.status === status).length
    return `${more.has(status) ? `over ${mostSessions}` : count} ${status}`
  })
  const ofWorkers = workers.map(({ id, device, status, running, resident }) => [
    id,
    device.name,
    status,
    running.map(({ step, since }) => `${step} ${duration((now - Date.parse(since)) / 1000)}`).join(', ') || resident.join(' '),
  ])
  const ofSessions = sessions.map((session) => [
    session.id,
    session.progress && session.status !== 'queued' ? `${session.status} ${percent(session.progress.fraction).trim()}` : session.status,
    duration((now - Date.parse(session.createdAt)) / 1000),
    session.waiting ?? session.progress?.step ?? session.workflow,
  ])
  const all = [
    `darkroom  ${counts.join(', ')}; ${workers.length} workers  ${new Date(now).toISOString()}`,
    '',
    ...table(['WORKER', 'DEVICE', 'STATUS', 'RUNS'], ofWorkers, columns).split('\n'),
    '',
    ...table(['SESSION', 'STATUS', 'AGE', ''], ofSessions, columns).split('\n'),
  ].map(inline)
  return all.length <= rows ? all : [...all.slice(0, rows - 1), `… ${all.length - rows + 1} more`]
}

/** The screen beside the one with the command line, without a cursor; and back. */
const enter = '\u001B[?1049h\u001B[?25l'
const leave = '\u001B[?25h\u001B[?1049l'
/** From the first line on; what stood there is overwritten, so that nothing flickers. */
const home = '\u001B[H'
const clearLine = '\u001B[K'
const clearBelow = '\u001B[J'

function interrupt(): { signal: AbortSignal; abort: () => void } {
  const over = new AbortController()
  return { signal: over.signal, abort: () => over.abort() }
}

export async function top({ json, url, interval = 1 }: ConnectionOptions & { json?: boolean; interval?: number }): Promise<void> {
  const client = await connectApi(url === undefined ? {} : { url })
  const out = process.stdout
  if (json) {
    const { workers, sessions } = await look(client)
    return sayJson({ workers, sessions })
  }
  if (!out.isTTY) {
    for (const line of lines(await look(client), Date.now(), Infinity, 0)) say(line)
    return
  }
  const { signal, abort } = interrupt()
  process.once('SIGINT', abort)
  out.write(enter)
  try {
    while (!signal.aborted) {
      const shown = lines(await look(client), Date.now(), out.rows, out.columns)
      out.write(home + shown.map((line) => `${safe(line)}${clearLine}`).join('\n') + clearBelow)
      // Ctrl-C is how one leaves it.
      await delay(interval * 1000, undefined, { signal }).catch(() => undefined)
    }
  } finally {
    process.off('SIGINT', abort)
    out.write(leave)
  }
}
