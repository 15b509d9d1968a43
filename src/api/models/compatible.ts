/** On which devices a model draws, and what it takes there. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { ImageRequest, ModelKind } from '../../domains/values.ts'
import { Compatible, compatibleWith } from '../../farm/compatible.ts'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { json, keyed, problems } from '../route.ts'
import { modelOf } from './of-path.ts'
import { modelParam } from './param.ts'

const side = z.coerce.number().int().min(8).max(65_536).multipleOf(8)
const count = z.coerce.number().int().min(1).max(100_000)
const scale = z.coerce.number().min(0).max(1000)
const Shape = z.strictObject({ width: side, height: side, steps: count, guidance: scale, kind: ModelKind }).partial()

const Picture = ImageRequest.pick({ width: true, height: true, steps: true, guidance: true })

export const CompatibleView = z.strictObject({ picture: Picture, devices: z.array(Compatible) }).meta({ id: 'ModelCompatible' })

const compatible = createRoute({
  method: 'get',
  path: '/models/{model}/compatible',
  summary: 'On which devices a model draws',
  description:
    'For each device whether a picture of the model fits, in which precision, with how much memory and in how many seconds, and why not. What the query leaves out is the model’s own recommendation.',
  tags: ['models'],
  ...keyed,
  middleware: needs('read'),
  request: {
    params: modelParam,
    query: Shape,
  },
  responses: { 200: json('The devices, by their ids', CompatibleView), ...problems(404, 409) },
})

export function compatibleRoutes({ engine }: ApiParts): App {
  const { models, runs } = engine
  const modelNamed = modelOf(models)
  return new OpenAPIHono<AppEnv>().openapi(compatible, async (c) => {
    const { kind, ...shape } = c.req.valid('query')
    const found = await modelNamed(c.req.valid('param').model, kind)
    const { entry, bodyHash } = found
    const { width = 512, height = 512, steps = 20, guidance = 7 } = { ...entry.drawing?.recommended, ...shape }
    const picture = { width, height, steps, guidance }
    const known = bodyHash === null ? [] : await runs.of(bodyHash)
    const workers = (await engine.workers()).toSorted((a, b) => (a.device.id < b.device.id ? -1 : 1))
    const devices = workers.map((worker) => {
      const has = models.holds(worker.shelf, { id: found.id, bodyHash }) === 'yes'
      return compatibleWith({ ...entry, id: found.id }, worker, { has, picture, runs: known })
    })
    return c.json({ picture, devices }, 200)
  })
}
