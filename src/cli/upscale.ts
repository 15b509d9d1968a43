/** `darkroom upscale`: a picture made larger, and saved. */
import { Problem, type CommandInput } from '../client/index.ts'
import { connectApi } from './connection.ts'
import { savePictures, uploaded } from './pictures.ts'
import { follow, type Output } from './sessions.ts'
import { Exit, inline, progressView, say, sayJson, silentView, whisper } from './terminal.ts'

type Fields = Omit<CommandInput<'image-upscale'>, 'picture' | 'width' | 'height'>

export interface UpscaleOptions extends Output, Fields {
  size?: { width: number; height: number }
  out?: string
  device?: string
  detach?: boolean
}

/** @throws Problem the refusal, or the error its session ended with; as `savePictures`; Exit 130 after Ctrl-C */
export async function upscale(file: string, options: UpscaleOptions): Promise<void> {
  const { json, url, out, device, detach, size, ...fields } = options
  const client = await connectApi(url === undefined ? {} : { url })
  const input = { ...fields, ...size, picture: await uploaded(client, file) }
  const submitted = await client.submit({ workflow: 'image-upscale', input, ...(device !== undefined && { device }) })
  if (detach) return json ? sayJson(submitted) : say(submitted.id)
  if (!json) whisper(inline(`session ${submitted.id}`))
  const session = await follow(client, submitted.id, json ? silentView : progressView())
  const files = session.status === 'succeeded' ? await savePictures(client, session, out) : []
  if (json) sayJson({ ...session, files })
  else for (const saved of files) say(`saved ${saved}`)
  if (session.status !== 'succeeded') throw json ? new Exit(1) : Problem.ofSession(session)
}
