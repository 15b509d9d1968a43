/** `darkroom fork | export | replay`: sessions that go on from another, and one as a file that runs elsewhere. */
import { readFile, writeFile } from 'node:fs/promises'
import type { DarkroomClient, SessionExport } from '../client/index.ts'
import { onDisk } from '../disk.ts'
import { artifactError, workflowError } from '../errors.ts'
import { connectApi } from './connection.ts'
import { readValue } from './run.ts'
import { follow, type Output } from './sessions.ts'
import { Exit, inline, progressView, say, sayJson, silentView, table, whisper } from './terminal.ts'

/** Exit status of a session that ran again and came to something else. */
const differs = 3

export async function states(id: string, options: Output): Promise<void> {
  const found = await (await connectApi(options)).states(id)
  if (options.json) return sayJson({ states: found })
  const rows = found.map(({ entry, at, value, open, calls }) => [
    String(entry),
    at,
    typeof value === 'string' ? value : JSON.stringify(value),
    [...open, ...(calls.length > 0 ? [`calls ${calls.join(', ')}`] : [])].join(' '),
  ])
  say(table(['ENTRY', 'AT', 'STATE', 'OPEN'], rows))
}

export interface ForkOptions extends Output {
  entry?: number
  call?: number
  set?: ReadonlyMap<string, string>
}

export async function fork(id: string, { entry, call, set, ...options }: ForkOptions): Promise<void> {
  const from = { ...(entry !== undefined && { entry }), ...(call !== undefined && { call }) }
  const session = await (
    await connectApi(options)
  ).fork(id, {
    ...(Object.keys(from).length > 0 && { from }),
    ...(set && { input: Object.fromEntries([...set].map(([name, value]) => [name, readValue(value)])) }),
  })
  if (options.json) return sayJson(session)
  const { forkOf } = session
  say(
    inline(`${session.id} ${session.status}, parts from ${forkOf?.session} after entry ${forkOf?.entry}, at ${forkOf?.step ?? 'no step'}`),
  )
}

export async function exportSession(id: string, { out, ...options }: Output & { out?: string }): Promise<void> {
  const file = out ?? `darkroom-${id}.json`
  const exported = await (await connectApi(options)).export(id)
  await onDisk(file, writeFile(file, `${JSON.stringify(exported, null, 2)}\n`))
  if (options.json) sayJson({ file })
  else say(inline(`saved ${file}`))
}

/**
 * Runs an exported session again, and compares what came of it: pictures by their bytes.
 * @throws DarkroomError `artifact.untold` for a file that is no such export, `workflow.changed` where the workflow has
 * another content; Problem where the farm refuses it
 * @throws Exit 3 when something else comes of it
 */
export async function replay(file: string, { json, url }: Output): Promise<void> {
  const exported = parse(await onDisk(file, readFile(file, 'utf8')))
  const client = await connectApi(url === undefined ? {} : { url })
  await checkContent(client, exported)
  const { workflow, input } = exported.request
  const submitted = await client.submit({ workflow, input })
  if (!json) whisper(inline(`session ${submitted.id}`))
  const session = await follow(client, submitted.id, json ? silentView : progressView())
  const [before, again] = [resultOf(exported.session), resultOf(session)]
  const isSame = JSON.stringify(before) === JSON.stringify(again)
  const verdict = {
    isSame,
    session: session.id,
    before,
    again,
    exactnessKey: { file: exported.session.exactnessKey, again: session.exactnessKey },
  }
  if (json) sayJson(verdict)
  else if (isSame) say(inline(`the same: ${JSON.stringify(again)}`))
  else {
    say(inline(`differs: it was ${JSON.stringify(before)}, and here it is ${JSON.stringify(again)}`))
    const { exactnessKey: key } = verdict
    if (key.file !== key.again)
      say(inline(`its exactness key is ${key.file}, and here it is ${key.again}, so equal bytes are not promised`))
  }
  if (!isSame) throw new Exit(differs)
}

/** What came of a session, without what another farm calls otherwise. */
function resultOf({ status, output, error }: SessionExport['session']): unknown {
  if (status !== 'succeeded') return { status, ...(error && { code: error.code }) }
  const plain = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(plain)
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(Object.entries(value).flatMap(([name, each]) => (name === 'url' ? [] : [[name, plain(each)]])))
  }
  return plain(output)
}

/** @throws DarkroomError `artifact.untold` */
function parse(text: string): SessionExport {
  const remedy = 'Name a file that `darkroom export` has written.'
  try {
    const read = JSON.parse(text) as Partial<SessionExport> | null
    if (read?.format !== 'darkroom.session/1') throw new Error('its `format` is not darkroom.session/1')
    if (typeof read.request?.workflow !== 'string' || typeof read.session?.status !== 'string')
      throw new Error('it lacks `request` or `session`')
    return read as SessionExport
  } catch (error) {
    throw artifactError('untold', `the file is no exported session: ${(error as Error).message}`, { remedy })
  }
}

/** @throws DarkroomError `workflow.changed`; Problem `workflow.unknown` */
async function checkContent(client: DarkroomClient, { request: { workflow }, content }: SessionExport): Promise<void> {
  const here = (await client.workflow(workflow)).source?.sha256 ?? null
  if (here === content) return
  throw workflowError('changed', `${workflow} had the content ${content ?? 'of Darkroom'}, and here it has ${here ?? 'that of Darkroom'}`, {
    remedy: 'Put the module that the session ran on into the folder of workflows, and replay it again.',
  })
}
