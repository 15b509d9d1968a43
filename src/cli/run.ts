/** `darkroom run`: any workflow by its name, with its input as `field=value`. */
import { Problem, type DarkroomClient } from '../client/index.ts'
import { connectApi, type ConnectionOptions } from './connection.ts'
import { dryRun } from './dry-run.ts'
import { follow } from './sessions.ts'
import { inline, progressView, sayJson, silentView, whisper } from './terminal.ts'

export interface RunOptions extends ConnectionOptions {
  json?: boolean
  device?: string
  dryRun?: boolean
}

/**
 * Submits a session of a workflow, shows its progress, prints its output as JSON.
 * @param given values as they were typed, by the name of their field
 * @throws Problem the refusal, or the error its session ended with
 * @throws Exit 130 after Ctrl-C
 */
export async function run(
  workflow: string,
  given: ReadonlyMap<string, string>,
  { json, device, url, dryRun: isDryRun }: RunOptions,
): Promise<void> {
  const client = await connectApi(url === undefined ? {} : { url })
  const input = await readInput(client, workflow, given)
  const submission = { workflow, input, ...(device !== undefined && { device }) }
  if (isDryRun) return dryRun(client, submission, json)
  const submitted = await client.submit(submission)
  if (!json) whisper(inline(`session ${submitted.id}`))
  const session = await follow(client, submitted.id, json ? silentView : progressView())
  if (session.status !== 'succeeded') throw Problem.ofSession(session)
  sayJson(session.output)
}

/** The input of a workflow, of values as they were typed. */
export async function readInput(
  client: DarkroomClient,
  workflow: string,
  given: ReadonlyMap<string, string>,
): Promise<Record<string, unknown>> {
  const isText = await textFields(client, workflow)
  return Object.fromEntries([...given].map(([name, value]) => [name, isText(name) ? value : readValue(value)]))
}

/** Which fields are text, whatever their value looks like: a model may be called `1.5`. */
export async function textFields(client: DarkroomClient, workflow: string): Promise<(name: string) => boolean> {
  try {
    const { properties = {} } = (await client.workflow(workflow)).inputSchema as { properties?: Record<string, { type?: unknown }> }
    return (name) => Object.hasOwn(properties, name) && properties[name]?.type === 'string'
  } catch (error) {
    // Without the workflow, or the scope to read it, the submission is what is refused, or not.
    if (error instanceof Problem && error.document.class === 'permanent') return () => false
    throw error
  }
}

/** JSON, or else text; a whole number that JSON would round is text too. */
export function readValue(text: string): unknown {
  try {
    const value = JSON.parse(text) as unknown
    return typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value) ? text : value
  } catch {
    return text
  }
}
