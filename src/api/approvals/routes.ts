/** Approvals over HTTP: a URL that lets a person without an API key send one signal. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { visibleSession } from '../policy.ts'
import { idParam, json, keyed, noQuery, problems } from '../route.ts'
import { iso } from '../view.ts'
import { AnswerBody, AnsweredView, ApprovalBody, GrantedView } from './views.ts'

const grant = createRoute({
  method: 'post',
  path: '/sessions/{id}/approvals',
  summary: 'Make a URL by which a person may answer a session once',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('control'),
  request: { params: idParam, query: noQuery, body: { required: true, content: { 'application/json': { schema: ApprovalBody } } } },
  responses: { 200: json('The URL, which is not told again', GrantedView), ...problems(404, 409) },
})

const answer = createRoute({
  method: 'post',
  path: '/approvals/{token}',
  summary: 'Answer a session that waits for a person',
  description: 'The token is all that is needed: no API key. It counts once.',
  tags: ['sessions'],
  request: {
    params: z.object({ token: z.string().meta({ param: { name: 'token', in: 'path' }, description: 'as in the URL of the approval' }) }),
    query: noQuery,
    body: { required: true, content: { 'application/json': { schema: AnswerBody } } },
  },
  responses: { 200: json('The signal was taken', AnsweredView), ...problems(404, 409, 410) },
})

/** Behind it no key is asked for. */
export const isByToken = (path: string): boolean => path.startsWith('/v1/approvals/')

export const approvalRoutes = ({ engine }: ApiParts): App =>
  new OpenAPIHono<AppEnv>()
    .openapi(grant, async (c) => {
      const { id } = await visibleSession(engine, c.req.valid('param').id, c.get('caller'))
      const { token, expiresAt } = await engine.grant(id, c.req.valid('json'))
      return c.json({ url: `/v1/approvals/${token}`, expiresAt: iso(expiresAt) }, 200)
    })
    .openapi(answer, async (c) => c.json(await engine.answer(c.req.valid('param').token, c.req.valid('json')), 200))
