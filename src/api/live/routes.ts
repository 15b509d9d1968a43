/** The live connection of a page: one WebSocket for all that it shows. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import type { WebSocket } from 'ws'
import { apiError } from '../../errors.ts'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { keyed, noQuery, problems } from '../route.ts'
import { Changes } from './changes.ts'
import { Connection } from './connection.ts'
import { Devices } from './devices.ts'
import { Turns } from './turns.ts'
import { closeCodes, LiveFrame, LiveRequest } from './views.ts'

/** Bytes that a caller may have left unread before it is told nothing more for now. */
const maxUnread = 64 * 1024
/** How long it may read nothing at all, ms. */
const deafMs = 30_000
const pingMs = 15_000
/** Messages of a caller in one second. */
const maxMessages = 20
/** Connections that speak before requests are answered again. */
const turnsAtOnce = 5
/** How long an end may take that the other side has to confirm, ms. */
const closeMs = 500

const live = createRoute({
  method: 'get',
  path: '/live',
  summary: 'Follow lists, sessions and devices (WebSocket)',
  description:
    'The caller sends one `LiveRequest` as JSON: all that it wants to hear. Another takes its place. Each message to the caller is an array of `LiveFrame`: first what there is, then what ' +
    'changes of it, at most five messages a second. Of records, progress and devices the latest is told; of a followed session every history entry, in order, after the one that the request ' +
    `names: so a caller that comes back, to this process or another, misses none. The connection ends with the code ${closeCodes.shutOut} within two seconds after its key was revoked, ` +
    `and with ${closeCodes.restart} when the API goes. What is no LiveRequest is answered with a \`problem\`.`,
  tags: ['live'],
  ...keyed,
  middleware: needs('read'),
  request: { query: noQuery },
  responses: { 101: { description: 'The connection' }, ...problems(426) },
})

export function liveRoutes(parts: ApiParts): App {
  const { slots, engine, log, closing } = parts
  const changes = new Changes(engine, log)
  const devices = new Devices(engine)
  const turns = new Turns(turnsAtOnce)
  closing?.addEventListener('abort', () => void changes.close())
  const routes = new OpenAPIHono<AppEnv>()
  routes.openAPIRegistry.register('LiveRequest', LiveRequest)
  routes.openAPIRegistry.register('LiveFrame', LiveFrame)
  routes.openAPIRegistry.registerPath(live)
  routes.get(live.path, live.middleware, async (c) => {
    const { accept } = c.env
    if (!accept) throw apiError('upgrade_required', 'a WebSocket is asked for at /v1/live, and the request opens none')
    const caller = c.get('caller')
    const requestId = c.get('requestId')
    const slot = await slots.take('streams', caller.keyId)
    const hold = (socket: WebSocket): void => {
      const gone = new AbortController()
      const beat = keepAlive(socket)
      const outlet = {
        isFree: () => socket.bufferedAmount < maxUnread,
        send: (message: string | Buffer) => socket.send(message, { binary: false }),
      }
      const connection = new Connection({ engine, changes, group: changes.group(), devices, turns, caller, requestId, outlet })
      const end = (code: number, why: string): void => {
        socket.close(code, why)
        setTimeout(() => socket.terminate(), closeMs)
      }
      let messages: number[] = []
      socket.on('message', (bytes: Buffer, isBinary) => {
        const now = performance.now()
        messages = [...messages.filter((at) => now - at < 1000), now]
        if (isBinary || messages.length > maxMessages) end(closeCodes.tooMuch, isBinary ? 'messages are text' : 'too many messages')
        else connection.take(bytes.toString('utf8'))
      })
      socket.on('error', (error) => log.debug({ requestId, err: error }, 'live connection'))
      socket.on('close', () => {
        clearInterval(beat)
        gone.abort()
      })
      slot.shut.addEventListener('abort', () => end(closeCodes.shutOut, 'the key was revoked'))
      closing?.addEventListener('abort', () => end(closeCodes.restart, 'the API goes'), { signal: gone.signal })
      connection.run(AbortSignal.any([gone.signal, slot.shut, ...(closing ? [closing] : [])])).catch((error: unknown) => {
        log.error({ requestId, err: error }, 'live connection failed')
        end(closeCodes.restart, 'it failed; come back')
      })
    }
    // The connection below may end before it is a WebSocket.
    accept(hold, () => slot.release())
    return c.body(null, 204)
  })
  return routes
}

/** Ends a connection whose other side is gone, or has read nothing for long. */
function keepAlive(socket: WebSocket): NodeJS.Timeout {
  let heardAt = performance.now()
  socket.on('pong', () => (heardAt = performance.now()))
  return setInterval(() => {
    if (performance.now() - heardAt > deafMs + pingMs) socket.terminate()
    else socket.ping()
  }, pingMs)
}
