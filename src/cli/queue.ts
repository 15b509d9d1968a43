/** `darkroom queue`: who waits for a device, put first or behind, and whether anybody is let in. */
import type { Queue, QueuePart } from '../client/index.ts'
import { connectApi } from './connection.ts'
import { duration } from './progress.ts'
import type { Output } from './sessions.ts'
import { inline, say, sayJson, table } from './terminal.ts'

export async function show({ json, url, limit }: Output & { limit?: number }): Promise<void> {
  const client = await connectApi(url === undefined ? {} : { url })
  const queue = await client.queue(limit === undefined ? {} : { limit })
  if (json) return sayJson(queue)
  describe(queue)
}

export async function move(id: string, to: 'front' | 'back', { json, url }: Output): Promise<void> {
  const client = await connectApi(url === undefined ? {} : { url })
  const session = await client.move(id, to)
  if (json) return sayJson(session)
  say(inline(`${session.id}: ${placeOf(session)}`))
}

export async function moveBefore(id: string, next: string, { json, url }: Output): Promise<void> {
  const client = await connectApi(url === undefined ? {} : { url })
  const session = await client.moveBefore(id, next)
  if (json) return sayJson(session)
  say(inline(`${session.id}: ${placeOf(session)}`))
}

export async function prioritize(id: string, priority: number, { json, url }: Output): Promise<void> {
  const client = await connectApi(url === undefined ? {} : { url })
  const session = await client.prioritize(id, priority)
  if (json) return sayJson(session)
  say(inline(`${session.id}: priority ${session.priority}, ${placeOf(session)}`))
}

export async function turn(verb: 'pause' | 'resume', { json, url, device, class: exactnessKey }: Output & QueuePart): Promise<void> {
  const client = await connectApi(url === undefined ? {} : { url })
  const part = { ...(device !== undefined && { device }), ...(exactnessKey !== undefined && { class: exactnessKey }) }
  const queue = await client.switchQueue(verb, part)
  if (json) return sayJson(queue)
  describe(queue)
}

const placeOf = ({ status, position, startsInS }: { status: string; position: number | null; startsInS: number | null }): string =>
  position === null ? `${status}, waits for no device` : `place ${position}${startsInS === null ? '' : `, in about ${duration(startsInS)}`}`

function describe({ waiting, running, next, paused, sessions }: Queue): void {
  for (const { device, class: exactnessKey, since } of paused) {
    const what = device !== undefined ? `device ${device}` : exactnessKey !== undefined ? `hardware class ${exactnessKey}` : 'the queue'
    say(inline(`${what} is paused since ${since}`))
  }
  say(`${waiting} in line, ${running} running, ${next} next`)
  if (sessions.length === 0) return
  const rows = sessions.map(({ position, session, priority, level, waitedS, startsInS, why }) => [
    String(position),
    inline(session),
    level === priority ? String(priority) : `${priority}, risen to ${level}`,
    duration(waitedS),
    startsInS === null ? '' : duration(startsInS),
    inline(why),
  ])
  say(table(['PLACE', 'SESSION', 'PRIORITY', 'WAITED', 'STARTS IN', 'WHY'], rows))
}
