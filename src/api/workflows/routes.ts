import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { workflowError } from '../../errors.ts'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { refuseBody } from '../body.ts'
import { json, keyed, noQuery, problems } from '../route.ts'
import { layOut } from '../../engine/layout.ts'
import type { WorkflowInfo } from '../../engine/registry.ts'
import { DrawingView, presentDrawing, presentReload, presentWorkflow, ReloadView, WorkflowView } from './views.ts'

const list = createRoute({
  method: 'get',
  path: '/workflows',
  summary: 'List the workflows',
  tags: ['workflows'],
  ...keyed,
  middleware: needs('read'),
  request: { query: noQuery },
  responses: { 200: json('All workflows', z.strictObject({ workflows: z.array(WorkflowView) })), ...problems() },
})

const get = createRoute({
  method: 'get',
  path: '/workflows/{name}',
  summary: 'Get a workflow: its schemas, its needs, its diagram',
  tags: ['workflows'],
  ...keyed,
  middleware: needs('read'),
  request: { params: z.object({ name: z.string().meta({ example: 'image-generation' }) }), query: noQuery },
  responses: { 200: json('The workflow', WorkflowView), ...problems(404) },
})

const draw = createRoute({
  method: 'get',
  path: '/workflows/{name}/drawing',
  summary: 'Where the states of a workflow stand in a drawing of it',
  tags: ['workflows'],
  ...keyed,
  middleware: needs('read'),
  request: get.request,
  responses: { 200: json('Its boxes and the ways between them', DrawingView), ...problems(404) },
})

const reload = createRoute({
  method: 'post',
  path: '/workflows/reload',
  summary: 'Read the folder of workflows of one’s own again',
  description:
    'This process has read it when the answer comes, every other one a second later. Sessions under way go on with the content they began with.',
  tags: ['workflows'],
  ...keyed,
  middleware: needs('operate'),
  request: { query: noQuery },
  responses: { 200: json('What can be used now, and what was refused', ReloadView), ...problems(409) },
})

export function workflowRoutes({ engine }: ApiParts): App {
  const newest = (name: string): WorkflowInfo => {
    const versions = engine.workflows().filter((workflow) => name === workflow.name || name === `${workflow.name}@${workflow.version}`)
    const [found] = versions.toSorted((a, b) => b.version - a.version)
    if (found) return found
    throw workflowError('unknown', `there is no workflow ${JSON.stringify(name.slice(0, 128))}`)
  }
  return new OpenAPIHono<AppEnv>()
    .openapi(list, (c) => c.json({ workflows: engine.workflows().map(presentWorkflow) }, 200))
    .openapi(reload, async (c) => {
      await refuseBody(c)
      return c.json(presentReload(await engine.reloadWorkflows()), 200)
    })
    .openapi(get, (c) => c.json(presentWorkflow(newest(c.req.valid('param').name)), 200))
    .openapi(draw, (c) => c.json(presentDrawing(layOut(newest(c.req.valid('param').name).graph)), 200))
}
