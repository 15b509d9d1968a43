import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import { workflowError } from '../errors.ts'
import type { WorkflowInfo } from '../engine/registry.ts'
import { needs } from './auth.ts'
import type { ApiParts, App, AppEnv } from './context.ts'
import { json, keyed, noQuery, problems } from './route.ts'

const Schema = z.record(z.string(), z.unknown()).openapi({ description: 'JSON Schema' })

const WorkflowView = z
  .strictObject({
    name: z.string(),
    version: z.int(),
    title: z.string(),
    description: z.string(),
    inputSchema: Schema,
    outputSchema: Schema,
    resources: z.unknown().openapi({ description: 'what a session of it needs' }),
    diagram: z.string().openapi({ description: 'Mermaid' }),
  })
  .openapi('Workflow')

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
  request: { params: z.object({ name: z.string().openapi({ example: 'image-generation' }) }), query: noQuery },
  responses: { 200: json('The workflow', WorkflowView), ...problems(404) },
})

export function workflowRoutes({ engine }: ApiParts): App {
  return new OpenAPIHono<AppEnv>()
    .openapi(list, (c) => c.json({ workflows: engine.workflows().map(presentWorkflow) }, 200))
    .openapi(get, (c) => {
      const { name } = c.req.valid('param')
      const versions = engine.workflows().filter((workflow) => name === workflow.name || name === `${workflow.name}@${workflow.version}`)
      const newest = versions.toSorted((a, b) => b.version - a.version)[0]
      if (!newest) throw workflowError('unknown', `there is no workflow ${JSON.stringify(name.slice(0, 128))}`)
      return c.json(presentWorkflow(newest), 200)
    })
}

function presentWorkflow(workflow: WorkflowInfo): z.infer<typeof WorkflowView> {
  return {
    name: workflow.name,
    version: workflow.version,
    title: workflow.title,
    description: workflow.description,
    inputSchema: jsonSchema(workflow.input, 'input'),
    outputSchema: jsonSchema(workflow.output, 'output'),
    resources: workflow.resources,
    diagram: workflow.diagram,
  }
}

/** JSON Schema 2020-12, which is what OpenAPI 3.1 speaks. */
export function jsonSchema(schema: z.core.$ZodType, side: 'input' | 'output'): Record<string, unknown> {
  return { ...z.toJSONSchema(schema, { io: side, unrepresentable: 'any' }) }
}
