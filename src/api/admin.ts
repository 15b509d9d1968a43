/**
 * Bull Board shows operators the queues. It has no authentication of its own, so it is mounted behind that of the API.
 */
import { createBullBoard } from '@bull-board/api'
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter'
import { HonoAdapter } from '@bull-board/hono'
import { serveStatic } from '@hono/node-server/serve-static'
import { Hono } from 'hono'
import { apiError } from '../errors.ts'
import { needs } from './auth.ts'
import type { ApiParts, AppEnv } from './context.ts'

const base = '/admin/queues'

const policy =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; connect-src 'self'; " +
  "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"

/** The board, read-only unless the configuration lets operators write. */
export function adminRoutes({ engine, config }: Pick<ApiParts, 'engine' | 'config'>): Hono<AppEnv> {
  const server = new HonoAdapter(serveStatic)
  server.setBasePath(base)
  const board = createBullBoard({ queues: [], serverAdapter: server, options: { uiConfig: { boardTitle: 'Darkroom queues' } } })
  const adapters = new Map<string, BullMQAdapter>()

  /** Lanes come and go with the workers. */
  const refresh = async (): Promise<void> => {
    const queues = await engine.queues()
    board.replaceQueues(
      queues.map((queue) => {
        const adapter = adapters.get(queue.name) ?? new BullMQAdapter(queue, { readOnlyMode: !config.boardWrite })
        adapters.set(queue.name, adapter)
        return adapter
      }),
    )
  }

  const app = new Hono<AppEnv>()
  app.use('*', needs('operate'), async (c, next) => {
    const isRead = c.req.method === 'GET' || c.req.method === 'HEAD'
    if (!isRead && !config.boardWrite) throw apiError('board_read_only', 'this board is read-only')
    if (!c.req.path.startsWith(`${base}/static/`)) await refresh()
    await next()
    if (c.res.status === 404) throw apiError('not_found', `the board has nothing at ${c.req.path.slice(0, 200)}`)
    if (c.res.status === 405) throw apiError('board_read_only', 'this queue is read-only')
    if (c.res.status >= 400) {
      const said = `the board answered ${c.res.status}: ${(await c.res.text()).slice(0, 500)}`
      throw c.res.status < 500 ? apiError('board_refused', said) : new Error(said)
    }
    c.header('Content-Security-Policy', policy)
  })
  app.route('/', server.registerPlugin())
  return app
}
