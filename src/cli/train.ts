/** `darkroom train`: a folder of pictures, each beside a text of its name that says what is to be seen, to a LoRA. */
import { readdir, readFile } from 'node:fs/promises'
import { basename, extname, join } from 'node:path'
import { Problem } from '../client/index.ts'
import { onDisk } from '../disk.ts'
import { configError } from '../errors.ts'
import { connectApi, type ConnectionOptions } from './connection.ts'
import { savePictures, uploaded } from './pictures.ts'
import { follow } from './sessions.ts'
import { inline, progressView, say, sayJson, silentView, whisper } from './terminal.ts'

export interface TrainOptions extends ConnectionOptions {
  json?: boolean
  name: string
  model?: string
  size?: { width: number; height: number }
  steps?: number
  rank?: number
  alpha?: number
  learningRate?: number
  batch?: number
  seed?: number
  sample?: string
  out?: string
}

const pictures = new Set(['.png', '.jpg', '.jpeg', '.webp', '.avif'])

/**
 * The pictures of a folder with their captions, by name.
 * @throws DarkroomError `config.invalid` for a folder without pictures, and for one that lacks its text; as `onDisk`
 */
export async function captioned(folder: string): Promise<{ path: string; caption: string }[]> {
  const names = (await onDisk(folder, readdir(folder))).filter((name) => pictures.has(extname(name).toLowerCase())).toSorted()
  const remedy = 'Put beside each picture, NAME.png, a text NAME.txt that says what is to be seen in it.'
  if (names.length === 0) throw configError('invalid', `${folder} holds no PNG, JPEG, WebP or AVIF`, { remedy })
  return Promise.all(
    names.map(async (name) => {
      const text = join(folder, `${basename(name, extname(name))}.txt`)
      const caption = await readFile(text, 'utf8').catch((error: unknown) => {
        throw configError('invalid', `${text} cannot be read`, { remedy, cause: error })
      })
      return { path: join(folder, name), caption: caption.trim() }
    }),
  )
}

/** @throws Problem; Exit 130 after Ctrl-C; as `captioned` */
export async function train(folder: string, { json, url, sample, size, out, ...given }: TrainOptions): Promise<void> {
  const found = await captioned(folder)
  const client = await connectApi(url === undefined ? {} : { url })
  const examples = []
  for (const { path, caption } of found) examples.push({ picture: await uploaded(client, path), caption })
  const input = { ...given, ...size, examples, ...(sample !== undefined && { sample: { prompt: sample } }) }
  const { id } = await client.submit({ workflow: 'lora-training', input })
  if (!json) whisper(inline(`session ${id}: ${examples.length} pictures`))
  const session = await follow(client, id, json ? silentView : progressView())
  if (session.status !== 'succeeded') throw Problem.ofSession(session)
  if (json) return sayJson(session.output)
  const { adapter, loss } = session.output as { adapter: { name: string; path: string }; loss: number }
  say(inline(`${adapter.path}, loss ${loss.toPrecision(3)}`))
  for (const path of await savePictures(client, session, out)) say(inline(`sample: ${path}`))
  say(inline(`Try: npx darkroom generate "${examples[0]?.caption ?? ''}" --lora ${adapter.name}`))
}
