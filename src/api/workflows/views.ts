/** Workflows as HTTP shows them: with the JSON Schema of their inputs and outputs. */
import { z } from 'zod'
import type { WorkflowInfo } from '../../engine/registry.ts'
import { jsonSchema } from '../json-schema.ts'

const Schema = z.record(z.string(), z.unknown()).meta({ description: 'JSON Schema' })

export const WorkflowView = z
  .strictObject({
    name: z.string(),
    version: z.int(),
    title: z.string(),
    description: z.string(),
    inputSchema: Schema,
    outputSchema: Schema,
    resources: z.unknown().meta({ description: 'what a session of it needs' }),
    diagram: z.string().meta({ description: 'Mermaid' }),
  })
  .meta({ id: 'Workflow' })

export function presentWorkflow(workflow: WorkflowInfo): z.infer<typeof WorkflowView> {
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
