/**
 * Policies of content safety: written as versions, tried on samples, activated, rolled back, and applied to everybody
 * or to an API key. Who may read, may read them, for verdicts name them; operators change them.
 */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { differences, Trial, tried } from '../../domains/postprocessing/safety/trial.ts'
import { everybody, ofKey } from '../../engine/policies.ts'
import { keyError } from '../../errors.ts'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { json, keyed, noQuery, problems } from '../route.ts'
import {
  ActivatePolicy,
  AddPolicy,
  AppliedView,
  ApplyPolicy,
  PolicyDifferences,
  PolicyList,
  PolicyVersionView,
  PolicyView,
  presentPolicy,
  presentVersion,
  RollBackPolicy,
  TryPolicy,
} from './views.ts'

const tags = ['policies']
const name = z
  .string()
  .max(64)
  .meta({ param: { name: 'name', in: 'path' }, description: 'name of the policy' })
const number = z
  .string()
  .regex(/^[1-9]\d{0,8}$/, 'must be the number of a version')
  .transform(Number)
const body = <S extends z.ZodType>(schema: S) => ({ required: true, content: { 'application/json': { schema } } })

const list = createRoute({
  method: 'get',
  path: '/policies',
  summary: 'List the policies of content safety',
  tags,
  ...keyed,
  middleware: needs('read'),
  request: { query: noQuery },
  responses: { 200: json('All policies, by name', PolicyList), ...problems() },
})

const add = createRoute({
  method: 'post',
  path: '/policies',
  summary: 'Write the next version of a policy',
  description: 'It never changes, and does not apply before it is activated.',
  tags,
  ...keyed,
  middleware: needs('operate'),
  request: { query: noQuery, body: body(AddPolicy) },
  responses: { 201: json('The version', PolicyVersionView), ...problems(409) },
})

const get = createRoute({
  method: 'get',
  path: '/policies/{name}',
  summary: 'Get a policy: which version is in force, since when, and for whom',
  tags,
  ...keyed,
  middleware: needs('read'),
  request: { params: z.object({ name }), query: noQuery },
  responses: { 200: json('The policy', PolicyView), ...problems(404) },
})

const getVersion = createRoute({
  method: 'get',
  path: '/policies/{name}/versions/{version}',
  summary: 'Read a version of a policy',
  tags,
  ...keyed,
  middleware: needs('read'),
  request: {
    params: z.object({ name, version: number.meta({ param: { name: 'version', in: 'path' }, type: 'integer' }) }),
    query: noQuery,
  },
  responses: { 200: json('The version', PolicyVersionView), ...problems(404) },
})

const compare = createRoute({
  method: 'get',
  path: '/policies/{name}/differences',
  summary: 'Compare two versions of a policy',
  tags,
  ...keyed,
  middleware: needs('read'),
  request: {
    params: z.object({ name }),
    query: z.strictObject({ from: number.meta({ type: 'integer' }), to: number.meta({ type: 'integer' }) }),
  },
  responses: { 200: json('What the two say otherwise', PolicyDifferences), ...problems(404) },
})

const attempt = createRoute({
  method: 'post',
  path: '/policies/{name}/try',
  summary: 'Try a version of a policy on samples',
  description: 'What it would do with pictures of these scores, against what you expect and against the version in force. Nothing changes.',
  tags,
  ...keyed,
  middleware: needs('read'),
  request: { params: z.object({ name }), query: noQuery, body: body(TryPolicy) },
  responses: { 200: json('What it would do', Trial), ...problems(404) },
})

const activate = createRoute({
  method: 'post',
  path: '/policies/{name}/activate',
  summary: 'Have a version of a policy apply from now on',
  description: 'Sessions that were accepted before keep the version that they were accepted with.',
  tags,
  ...keyed,
  middleware: needs('operate'),
  request: { params: z.object({ name }), query: noQuery, body: body(ActivatePolicy) },
  responses: { 200: json('The version in force', PolicyVersionView), ...problems(404, 409) },
})

const rollBack = createRoute({
  method: 'post',
  path: '/policies/{name}/rollback',
  summary: 'Have the version before apply again',
  tags,
  ...keyed,
  middleware: needs('operate'),
  request: { params: z.object({ name }), query: noQuery, body: body(RollBackPolicy) },
  responses: { 200: json('The version in force', PolicyVersionView), ...problems(404, 409) },
})

const who = z
  .string()
  .max(64)
  .meta({ param: { name: 'who', in: 'path' }, description: '`default`, for everybody without one; or the id of an API key' })
const apply = createRoute({
  method: 'put',
  path: '/policies/applied/{who}',
  summary: 'Have a policy apply to everybody, or to one API key in place of that',
  description: 'A request may name a further policy, so for it things can only be stricter.',
  tags,
  ...keyed,
  middleware: needs('operate'),
  request: { params: z.object({ who }), query: noQuery, body: body(ApplyPolicy) },
  responses: { 200: json('What applies now', AppliedView), ...problems(404, 409) },
})

export function policyRoutes({ engine, keys }: ApiParts): App {
  const { policies } = engine
  return new OpenAPIHono<AppEnv>()
    .openapi(list, async (c) => c.json({ policies: await policies.list() }, 200))
    .openapi(add, async (c) => {
      const { name: own, policy } = c.req.valid('json')
      return c.json(presentVersion(await policies.add(own, policy, c.get('caller').keyId)), 201)
    })
    .openapi(get, async (c) => {
      const { name: own } = c.req.valid('param')
      return c.json(presentPolicy(await policies.record(own), await policies.changes(own)), 200)
    })
    .openapi(getVersion, async (c) => {
      const { name: own, version } = c.req.valid('param')
      return c.json(presentVersion(await policies.version(own, version)), 200)
    })
    .openapi(compare, async (c) => {
      const { name: own } = c.req.valid('param')
      const { from, to } = c.req.valid('query')
      const [before, after] = await Promise.all([policies.version(own, from), policies.version(own, to)])
      return c.json({ name: own, from, to, differences: differences(before.policy, after.policy) }, 200)
    })
    .openapi(attempt, async (c) => {
      const { name: own } = c.req.valid('param')
      const { version, against, samples } = c.req.valid('json')
      const [candidate, other] = await Promise.all([
        policies.version(own, version),
        against === undefined ? policies.active(own) : policies.version(own, against),
      ])
      return c.json(tried(candidate, other, samples), 200)
    })
    .openapi(activate, async (c) => {
      const { name: own } = c.req.valid('param')
      const { version, instead } = c.req.valid('json')
      return c.json(presentVersion(await policies.activate(own, version, c.get('caller').keyId, instead)), 200)
    })
    .openapi(rollBack, async (c) => {
      const { name: own } = c.req.valid('param')
      const { instead } = c.req.valid('json')
      return c.json(presentVersion(await policies.rollBack(own, c.get('caller').keyId, instead)), 200)
    })
    .openapi(apply, async (c) => {
      const { who: whose } = c.req.valid('param')
      const { policy } = c.req.valid('json')
      const isKnown = whose === everybody || (await keys.list()).some(({ id }) => id === whose)
      if (!isKnown && policy !== null)
        throw keyError('unknown', `there is no API key ${JSON.stringify(whose.slice(0, 64))}`, { field: 'who' })
      await policies.apply(whose === everybody ? whose : ofKey(whose), policy)
      return c.json({ who: whose, policy }, 200)
    })
}
