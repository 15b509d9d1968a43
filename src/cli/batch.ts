/** `darkroom batch`: many sessions of one workflow, from a file and from options. */
import { createWriteStream } from 'node:fs'
import { access, readFile, rm, writeFile } from 'node:fs/promises'
import { extname } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { text } from 'node:stream/consumers'
import type { ReadableStream as WebStream } from 'node:stream/web'
import { sha256Of } from '../artifacts/store.ts'
import { Problem, type DarkroomClient, type Session } from '../client/index.ts'
import { onDisk } from '../disk.ts'
import { artifactError, invalidFields } from '../errors.ts'
import { connectApi } from './connection.ts'
import { dryRun } from './dry-run.ts'
import { readValue, textFields } from './run.ts'
import { follow, type Output } from './sessions.ts'
import { Exit, inline, progressView, say, sayJson, silentView, whisper } from './terminal.ts'

type Fields = Record<string, unknown>

export interface BatchOptions extends Output {
  workflow?: string
  set?: ReadonlyMap<string, string>
  grid?: ReadonlyMap<string, string>
  seeds?: { from?: number; count: number }
  wildcards?: string
  window?: number
  order?: string
  onFailure?: string | number
  zip?: string
  sheet?: string
  priority?: number
  device?: string
  tag?: string[]
  detach?: boolean
  dryRun?: boolean
}

/** Submits a batch, shows its progress, saves what it has drawn. */
export async function batch(file: string | undefined, options: BatchOptions): Promise<void> {
  const { json, url, zip, sheet, priority, device, tag, detach, dryRun: isDryRun, set, grid, ...more } = options
  const saved = [zip, sheet].flatMap((path) => path ?? [])
  for (const path of saved) await mustBeFree(path)
  const fromFile = file === undefined ? {} : await requestOf(file)
  const client = await connectApi(url === undefined ? {} : { url })
  const workflow = more.workflow ?? fromFile['workflow']
  const isText = await textFields(client, typeof workflow === 'string' ? workflow : 'image-generation')
  const valueOf = (field: string, value: string): unknown => (isText(field) ? value : readValue(value))
  const axes = [...(grid ?? [])].map(([field, values]) => [
    field,
    listOf(values).map((value) => (typeof value === 'string' ? valueOf(field, value) : value)),
  ])
  const input = {
    ...fromFile,
    ...more,
    ...(set && {
      input: {
        ...(fromFile['input'] as Fields | undefined),
        ...Object.fromEntries([...set].map(([field, value]) => [field, valueOf(field, value)])),
      },
    }),
    ...(grid && { grid: { ...(fromFile['grid'] as Fields | undefined), ...(Object.fromEntries(axes) as Fields) } }),
  }
  const submission = {
    workflow: 'batch',
    input,
    ...(priority !== undefined && { priority }),
    ...(device !== undefined && { device }),
    ...(tag && { tags: tag }),
  }
  if (isDryRun) return dryRun(client, submission, json)
  const submitted = await client.submit(submission)
  if (detach) return json ? sayJson(submitted) : say(submitted.id)
  if (!json) whisper(inline(`session ${submitted.id}: ${submitted.progress?.items?.total} items`))
  const session = await follow(client, submitted.id, json ? silentView : progressView())
  const counts = session.progress?.items
  if ((counts?.succeeded ?? 0) > 0) {
    if (zip !== undefined) await saveResults(client, session, zip)
    if (sheet !== undefined) await saveSheet(client, session, sheet)
  }
  if (json) sayJson(session)
  else {
    for (const path of saved) say(`saved ${path}`)
    say(`${counts?.succeeded} succeeded, ${counts?.failed} failed, ${counts?.cancelled} cancelled`)
    if ((counts?.failed ?? 0) > 0) whisper(inline(`\`darkroom retry ${session.id}\` draws those again that have not succeeded`))
  }
  if (session.status !== 'succeeded') throw json ? new Exit(1) : Problem.ofSession(session)
}

/** Before anything is drawn for it. @throws DarkroomError `api.invalid` */
async function mustBeFree(path: string): Promise<void> {
  const isTaken = await access(path).then(
    () => true,
    () => false,
  )
  if (isTaken) throw invalidFields([{ field: path, message: 'is there already: name another file' }])
}

/**
 * What a file asks for: JSON is the request of a batch, or the list of its items; any other text is a prompt a line.
 * @throws DarkroomError `api.invalid`; as `onDisk`
 */
async function requestOf(file: string): Promise<Fields> {
  const read = file === '-' ? await text(process.stdin) : await onDisk(file, readFile(file, 'utf8'))
  const isJson = extname(file).toLowerCase() === '.json' || /^\s*[[{]\s*["{[\]}]/.test(read)
  if (!isJson) {
    const lines = read.split(/\r?\n/).filter((line) => line.trim() !== '')
    return { items: lines.map((line) => ({ prompt: line })) }
  }
  try {
    const value = JSON.parse(read) as unknown
    if (Array.isArray(value)) return { items: value }
    if (typeof value === 'object' && value !== null) return value as Fields
  } catch (error) {
    throw invalidFields([{ field: file, message: `is no JSON: ${(error as Error).message}` }])
  }
  throw invalidFields([{ field: file, message: 'must be a batch, as POST /v1/sessions takes it as `input`, or a list of items' }])
}

/** `10,20,30`, or a JSON array where values hold commas. */
function listOf(values: string): unknown[] {
  if (!values.startsWith('[')) return values.split(',')
  const list = readValue(values)
  return Array.isArray(list) ? list : values.split(',')
}

async function saveResults(client: DarkroomClient, { id }: Session, path: string): Promise<void> {
  const stream = Readable.fromWeb((await client.results(id)) as WebStream)
  await onDisk(path, pipeline(stream, createWriteStream(path, { flags: 'wx' }))).catch(async (error: unknown) => {
    // Another one's file is left alone; half of ours is of no use.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') await rm(path, { force: true })
    throw error
  })
}

async function saveSheet(client: DarkroomClient, { id }: Session, path: string): Promise<void> {
  const { sha256 } = await client.run('image-sheet', { session: id })
  const bytes = await client.artifact(sha256)
  if (sha256Of(bytes) !== sha256) throw artifactError('corrupt', `the sheet ${sha256} came with other bytes`)
  await onDisk(path, writeFile(path, bytes, { flag: 'wx' }))
}
