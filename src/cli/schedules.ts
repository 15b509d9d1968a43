/** `darkroom schedules`: submissions that are made again and again. */
import type { AddSchedule, Schedule } from '../client/index.ts'
import { connectApi, type ConnectionOptions } from './connection.ts'
import { readInput } from './run.ts'
import { fields, inline, say, sayJson, table } from './terminal.ts'

interface Output extends ConnectionOptions {
  json?: boolean
}

const ruleOf = ({ cron, timezone, everyS }: Schedule): string => (cron === null ? `every ${everyS} s` : `${cron} ${timezone}`)

export async function list(options: Output): Promise<void> {
  const schedules = await (await connectApi(options)).schedules.list()
  if (options.json) return sayJson(schedules)
  if (schedules.length === 0) return say('no schedules')
  const rows = schedules.map((schedule) => [
    schedule.id,
    ruleOf(schedule),
    schedule.isPaused ? 'paused' : (schedule.next[0] ?? 'never'),
    schedule.occurrences[0]?.is ?? '',
    schedule.name,
  ])
  say(table(['SCHEDULE', 'RULE', 'NEXT', 'LAST', 'NAME'], rows))
}

type AddOptions = Output & Pick<AddSchedule, 'cron' | 'timezone' | 'overlap'> & { every?: number; catchUp?: number }

export async function add(
  name: string,
  workflow: string,
  given: ReadonlyMap<string, string>,
  { cron, timezone, every, overlap, catchUp, json, ...options }: AddOptions,
): Promise<void> {
  const client = await connectApi(options)
  const made = await client.schedules.add({
    name,
    ...(cron !== undefined && { cron }),
    ...(timezone !== undefined && { timezone }),
    ...(every !== undefined && { everyS: every }),
    ...(overlap && { overlap }),
    ...(catchUp !== undefined && { catchUpS: catchUp }),
    session: { workflow, input: await readInput(client, workflow, given) },
  })
  if (json) sayJson(made)
  else say(inline(`${made.id} falls due at ${made.next[0]}`))
}

export async function show(id: string, options: Output): Promise<void> {
  const schedule = await (await connectApi(options)).schedules.get(id)
  if (options.json) return sayJson(schedule)
  const { name, overlap, catchUpS, isPaused, next, session, occurrences } = schedule
  const lines: [string, string | string[]][] = [
    ['schedule', schedule.id],
    ['name', name],
    ['rule', ruleOf(schedule)],
    ['overlap', `${overlap}, starts up to ${catchUpS} s late`],
    ['next', isPaused ? 'paused' : next],
    ['submits', `${session.workflow} ${JSON.stringify(session.input)}`],
  ]
  say(fields(lines, 12))
  if (occurrences.length === 0) return
  const rows = occurrences.map(({ instant, is, session: made, said }) => [instant, is, made ?? said ?? ''])
  say(`\n${table(['INSTANT', '', ''], rows)}`)
}

export async function control(verb: 'pause' | 'resume', id: string, options: Output): Promise<void> {
  const schedule = await (await connectApi(options)).schedules.control(id, verb)
  if (options.json) sayJson(schedule)
  else say(inline(`${id} ${schedule.isPaused ? 'paused' : `falls due at ${schedule.next[0]}`}`))
}

export async function remove(id: string, options: Output): Promise<void> {
  await (await connectApi(options)).schedules.remove(id)
  say(inline(`${id} starts nothing any more; its sessions go on`))
}
