import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { ModelKind } from '../../domains/values.ts'
import { apiError, fieldProblems, invalidFields } from '../../errors.ts'
import type { Annotation } from '../../models/annotations.ts'
import type { Listed } from '../../models/listing.ts'
import { kinds, knownFamilies } from '../../models/verdict.ts'
import { imageGeneration } from '../../workflows/index.ts'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { json, keyed, noQuery, pageLimit, problems } from '../route.ts'
import { modelOf } from './of-path.ts'
import { modelParam } from './param.ts'
import { ModelStatusView, presentStatus } from './status.ts'
import {
  AnnotateModel,
  AnnotationView,
  ModelPage,
  modelStatuses,
  ModelView,
  presentAnnotation,
  presentModel,
  presentShelf,
  RescanView,
  statusOf,
} from './views.ts'

const Filter = z.strictObject({
  kind: z.enum(kinds).optional(),
  family: z.enum(knownFamilies).optional(),
  status: z.enum(modelStatuses).optional(),
  name: z.string().max(200).optional().meta({ description: 'text that its name holds' }),
  tag: z.string().max(200).optional().meta({ description: 'a tag that its author or somebody here gave it' }),
  text: z.string().max(200).optional().meta({ description: 'words that name, title, tags, notes or trigger words hold, all of them' }),
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

const ofKind = z.strictObject({ kind: ModelKind })

const get = createRoute({
  method: 'get',
  path: '/models/{model}',
  summary: 'Get a model',
  tags: ['models'],
  ...keyed,
  middleware: needs('read'),
  request: { params: modelParam, query: ofKind },
  responses: { 200: json('The model', ModelView), ...problems(404, 409) },
})

const status = createRoute({
  method: 'get',
  path: '/models/{model}/status',
  summary: 'Where a model lies, where it is resident, and what it did where it was measured',
  tags: ['models'],
  ...keyed,
  middleware: needs('read'),
  request: { params: modelParam, query: ofKind },
  responses: { 200: json('All of it, at this moment', ModelStatusView), ...problems(404, 409) },
})

const annotate = createRoute({
  method: 'put',
  path: '/models/{model}/annotation',
  summary: 'Say of a model its title, tags, notes, and the settings and VAE that you like',
  description: 'It follows the bytes of the model, whatever they are called, and takes the place of what was said before.',
  tags: ['models'],
  ...keyed,
  middleware: needs('operate'),
  request: { params: modelParam, query: ofKind, body: { required: true, content: { 'application/json': { schema: AnnotateModel } } } },
  responses: { 200: json('What is said of it now', AnnotationView), ...problems(404, 409) },
})

const removeAnnotation = createRoute({
  method: 'delete',
  path: '/models/{model}/annotation',
  summary: 'Say nothing of a model any more',
  tags: ['models'],
  ...keyed,
  middleware: needs('operate'),
  request: { params: modelParam, query: ofKind },
  responses: { 204: { description: 'Nothing is said of it' }, ...problems(404, 409) },
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

function matching({ kind, family, status, name, tag, text }: z.infer<typeof Filter>): (listed: Listed) => boolean {
  const [inName, asTag] = [name?.toLowerCase(), tag?.toLowerCase()]
  const words = text?.toLowerCase().split(/\s+/).filter(Boolean) ?? []
  return (listed) =>
    (kind === undefined || listed.entry.verdict.kind === kind) &&
    (family === undefined || listed.entry.verdict.family === family) &&
    (status === undefined || statusOf(listed) === status) &&
    (inName === undefined || listed.entry.name.toLowerCase().includes(inName)) &&
    (asTag === undefined || tagsOf(listed).some((each) => each.toLowerCase() === asTag)) &&
    words.every((word) => listed.text.includes(word))
}

const tagsOf = ({ entry, annotation }: Listed): string[] => [...(entry.verdict.metadata.tags ?? []), ...(annotation?.tags ?? [])]

/**
 * Settings are held to what a request for a picture may say.
 * @throws DarkroomError `api.invalid`
 */
function checkSettings(settings: z.infer<typeof AnnotateModel>['settings']): void {
  const checked = imageGeneration.input.safeParse({ prompt: '', ...settings })
  if (!checked.success) throw invalidFields(fieldProblems(checked.error.issues, 'settings', 'settings.'))
}

export function modelRoutes({ engine }: ApiParts): App {
  const { models } = engine
  const found = modelOf(models)
  return new OpenAPIHono<AppEnv>()
    .openapi(list, async (c) => {
      const filter = c.req.valid('query')
      await models.read()
      const all = models.list().filter(matching(filter))
      const rest = filter.cursor === undefined ? all : all.filter(behind(filter.cursor))
      const page = rest.slice(0, filter.limit)
      const last = page.at(-1)
      const workers = await engine.workers()
      return c.json(
        {
          models: page.map((listed) => presentModel(listed, workers)),
          total: all.length,
          next: last && rest.length > page.length ? cursorOf(last) : null,
          shelves: models.shelves.map((shelf) => presentShelf(shelf, models.shelf)),
        },
        200,
      )
    })
    .openapi(get, async (c) => {
      const { model } = c.req.valid('param')
      return c.json(presentModel(await found(model, c.req.valid('query').kind), await engine.workers()), 200)
    })
    .openapi(status, async (c) => {
      const listed = await found(c.req.valid('param').model, c.req.valid('query').kind)
      const workers = await engine.workers()
      const classes = [...new Set(workers.map(({ exactnessKey }) => exactnessKey))]
      const benchmarks = listed.bodyHash === null ? [] : await models.benchmarks.of(listed.bodyHash, classes)
      return c.json(presentStatus(listed, workers, benchmarks), 200)
    })
    .openapi(annotate, async (c) => {
      const said = c.req.valid('json')
      checkSettings(said.settings)
      const settings = Object.fromEntries(Object.entries(said.settings).filter(([, value]) => value !== undefined))
      const model = await found(c.req.valid('param').model, c.req.valid('query').kind)
      const vae = said.vae === null ? null : await models.vaeOf(model, said.vae, 'vae')
      const annotation: Annotation = { ...said, settings, vae, changedAt: Date.now() }
      await models.annotate(model, annotation)
      return c.json(presentAnnotation(annotation), 200)
    })
    .openapi(removeAnnotation, async (c) => {
      await models.annotate(await found(c.req.valid('param').model, c.req.valid('query').kind), null)
      return c.body(null, 204)
    })
    .openapi(rescan, async (c) => c.json({ shelves: await models.rescan() }, 200))
}
