/**
 * A picture from somebody else's server, where the operator allows that: by the rules of `outgoing.ts`, without
 * redirects, bounded in bytes and time. What comes is a file of a stranger, and is decoded as an upload is.
 */
import { request as overHttp, type IncomingMessage } from 'node:http'
import { request as overHttps } from 'node:https'
import type { Config } from '../config.ts'
import { artifactError, DarkroomError } from '../errors.ts'
import { abortable, addressOf, pinnedTo, targetOf, type Outgoing, type Resolve } from '../outgoing.ts'
import { pictureLimits, pictureTypes } from './picture.ts'

/** From the name to the last byte, ms. */
const fetchMs = 20_000
/** Each holds a file. */
const atOnce = 4
let running = 0

interface Options {
  config: Pick<Config, 'pictureHosts' | 'pictureNets'>
  resolve?: Resolve
  limitMs?: number
  maxBytes?: number
}

/**
 * The bytes that `text`, a URL, names.
 * @throws DarkroomError `artifact.url_refused`, `artifact.url_failed` and `artifact.busy`, whose `field` is `url`
 */
export async function fetchPicture(text: string, options: Options): Promise<Uint8Array> {
  const { config, resolve, limitMs = fetchMs, maxBytes = pictureLimits.bytes } = options
  const outgoing: Outgoing = {
    hosts: config.pictureHosts,
    nets: config.pictureNets,
    names: { hosts: 'DARKROOM_PICTURE_HOSTS', nets: 'DARKROOM_PICTURE_NETS', what: 'pictures by URL' },
    refusal: (message) => artifactError('url_refused', message, { field: 'url' }),
  }
  const url = targetOf(text, outgoing)
  const failed = (why: string, cause?: unknown) =>
    artifactError('url_failed', `${url.origin}${url.pathname}: ${why}`, { field: 'url', cause })
  if (running >= atOnce) throw artifactError('busy', `${atOnce} pictures are being fetched already`, { field: 'url' })
  running++
  const signal = AbortSignal.timeout(limitMs)
  try {
    const address = await abortable(addressOf(url, outgoing, resolve), signal)
    const response = await new Promise<IncomingMessage>((answer, reject) => {
      const headers = { accept: pictureTypes.join(', '), 'accept-encoding': 'identity', 'user-agent': 'darkroom' }
      const send = url.protocol === 'https:' ? overHttps : overHttp
      send(url, { agent: false, lookup: pinnedTo(address), signal, headers }, answer)
        .once('error', reject)
        .end()
    })
    try {
      return await bytesOf(response, maxBytes, failed)
    } finally {
      response.destroy()
    }
  } catch (error) {
    if (error instanceof DarkroomError) throw error
    if (signal.aborted) throw failed(`it was not here within ${limitMs / 1000} s`, error)
    throw failed(error instanceof Error ? error.message || ((error as NodeJS.ErrnoException).code ?? error.name) : String(error), error)
  } finally {
    running--
  }
}

async function bytesOf(response: IncomingMessage, most: number, failed: (why: string) => DarkroomError): Promise<Uint8Array> {
  const { statusCode: status = 0, headers } = response
  if (status >= 300 && status < 400) throw failed(`its server answered ${status}, and redirects are not followed: name the place itself`)
  if (status !== 200) throw failed(`its server answered ${status}`)
  const tooLarge = (): DarkroomError => failed(`the file has more than ${most} bytes`)
  if (Number(headers['content-length'] ?? 0) > most) throw tooLarge()
  if ((headers['content-encoding'] ?? 'identity') !== 'identity')
    throw failed(`it comes as ${headers['content-encoding']}, which nobody asked for`)
  const chunks: Buffer[] = []
  let count = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    count += chunk.length
    if (count > most) throw tooLarge()
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}
