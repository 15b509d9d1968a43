import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { ModelName } from '../../domains/values.ts'
import { apiError } from '../../errors.ts'
import type { Listed } from '../../models/listing.ts'
import { kinds, knownFamilies } from '../../models/verdict.ts'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { json, keyed, noQuery, pageLimit, problems } from '../route.ts'
import { ModelPage, modelStatuses, ModelView, presentModel, presentShelf, RescanView, statusOf } from './views.ts'

const Filter = z.strictObject({
  kind: z.enum(kinds).optional(),
  family: z.enum(knownFamilies).optional(),
  status: z.enum(modelStatuses).optional(),
  text: z.string().max(200).optional().meta({ description: 'words that name, title, tags or trigger words hold, all of them' }),
  cursor: z.string().max(2000).optional(),
  limit: pageLimit(500, 100),
})

const list = createRoute({
  method: 'get',
  path: '/models',
  summary: 'List what lies in the model folders of all hosts',
  description: 'What cannot be used is listed too, with its reason. Several filters mean *and*.',
  tags: ['models'],
  ...keyed,
  middleware: needs('read'),
  request: { query: Filter },
  responses: { 200: json('A page of models, by name', ModelPage), ...problems() },
})

const get = createRoute({
  method: 'get',
  path: '/models/{model}',
  summary: 'Get a model',
  tags: ['models'],
  ...keyed,
  middleware: needs('read'),
  request: {
    params: z.object({
      model: ModelName.meta({ param: { name: 'model', in: 'path' }, description: 'its id, URL-encoded' }),
    }),
    query: noQuery,
  },
  responses: { 200: json('The model; of several kinds with one name the one that draws', ModelView), ...problems(404) },
})

const rescan = createRoute({
  method: 'post',
  path: '/models/rescan',
  summary: 'Look at the model folders again now',
  description: 'Changes are noticed by themselves within two seconds, on network folders within a minute.',
  tags: ['models'],
  ...keyed,
  middleware: needs('submit'),
  request: { query: noQuery },
  responses: { 200: json('The shelves whose hosts were asked', RescanView), ...problems() },
})

/** Where a page goes on: behind this model. */
const cursorOf = ({ id, entry }: Listed): string => Buffer.from(JSON.stringify([id, entry.verdict.kind])).toString('base64url')

function behind(cursor: string): (listed: Listed) => boolean {
  try {
    const [id, kind] = z.tuple([z.string(), z.string()]).parse(JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8')))
    return (listed) => listed.id > id || (listed.id === id && listed.entry.verdict.kind > kind)
  } catch (error) {
    throw apiError('invalid', 'cursor is not one that a page gave as `next`', { field: 'cursor', cause: error })
  }
}

function matching({ kind, family, status, text }: z.infer<typeof Filter>): (listed: Listed) => boolean {
  const words = text?.toLowerCase().split(/\s+/).filter(Boolean) ?? []
  return (listed) =>
    (kind === undefined || listed.entry.verdict.kind === kind) &&
    (family === undefined || listed.entry.verdict.family === family) &&
    (status === undefined || statusOf(listed) === status) &&
    words.every((word) => listed.text.includes(word))
}

export function modelRoutes({ engine }: ApiParts): App {
  const { models } = engine
  return new OpenAPIHono<AppEnv>()
    .openapi(list, async (c) => {
      const filter = c.req.valid('query')
      await models.read()
      const found = models.list().filter(matching(filter))
      const rest = filter.cursor === undefined ? found : found.filter(behind(filter.cursor))
      const page = rest.slice(0, filter.limit)
      const last = page.at(-1)
      const workers = await engine.workers()
      return c.json(
        {
          models: page.map((listed) => presentModel(listed, workers)),
          total: found.length,
          next: last && rest.length > page.length ? cursorOf(last) : null,
          shelves: models.shelves.map((shelf) => presentShelf(shelf, models.shelf)),
        },
        200,
      )
    })
    .openapi(get, async (c) => {
      const { model } = c.req.valid('param')
      const [found] = await models.find(model)
      if (!found)
        throw apiError('not_found', `there is no model ${JSON.stringify(model.slice(0, 200))}`, {
          remedy: 'GET /v1/models lists all models.',
        })
      return c.json(presentModel(found, await engine.workers()), 200)
    })
    .openapi(rescan, async (c) => c.json({ shelves: await models.rescan() }, 200))
}
