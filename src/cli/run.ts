/** `darkroom run`: any workflow by its name, with its input as `field=value`. */
import { Problem } from '../client/index.ts'
import { connectApi, type ConnectionOptions } from './connection.ts'
import { watch } from './sessions.ts'
import { progressView, sayJson, silentView, whisper } from './terminal.ts'

export interface RunOptions extends ConnectionOptions {
  json?: boolean
  device?: string
}

/**
 * Submits a session of a workflow, shows its progress, prints its output as JSON.
 * @throws Problem the refusal, or the error its session ended with
 */
export async function run(workflow: string, input: Record<string, unknown>, { json, device, url }: RunOptions): Promise<void> {
  const client = await connectApi(url === undefined ? {} : { url })
  const submitted = await client.submit({ workflow, input, ...(device !== undefined && { device }) })
  if (!json) whisper(`session ${submitted.id}`)
  const session = await watch(client, submitted.id, json ? silentView : progressView())
  if (session.status !== 'succeeded') throw Problem.ofSession(session)
  sayJson(session.output)
}
