/** Workflows as HTTP shows them: with the JSON Schema of their inputs and outputs. */
import { z } from 'zod'
import type { GraphState, GraphTransition } from '../../engine/diagram.ts'
import type { Drawing } from '../../engine/layout.ts'
import type { OwnReport } from '../../engine/own-workflows.ts'
import type { WorkflowInfo } from '../../engine/registry.ts'
import { jsonSchema } from '../json-schema.ts'
import { ErrorView, presentError } from '../sessions/views.ts'

const Schema = z.record(z.string(), z.unknown()).meta({ description: 'JSON Schema' })

const stateType = z.enum(['atomic', 'compound', 'parallel', 'final', 'history'])

const StateView: z.ZodType<GraphState> = z
  .strictObject({
    id: z.string(),
    name: z.string(),
    type: stateType,
    isFailure: z.boolean().meta({ description: 'a session that ends here has failed' }),
    steps: z.array(z.string()).meta({ description: 'steps and child sessions that run while it is entered' }),
    initial: z.string().nullable().meta({ description: 'id of the state inside in which it begins' }),
    get states() {
      return z.array(StateView)
    },
  })
  .meta({ id: 'WorkflowState' })

const TransitionView: z.ZodType<GraphTransition> = z
  .strictObject({
    from: z.string().meta({ description: 'id of a state' }),
    to: z.string().meta({ description: 'id of a state' }),
    on: z.string().meta({ description: '`done`, `error`, `always`, `after SECONDS s` or the name of an event' }),
    guard: z.string().nullable().meta({ description: 'name of its condition' }),
  })
  .meta({ id: 'WorkflowTransition' })

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
    graph: z
      .strictObject({ root: StateView, transitions: z.array(TransitionView) })
      .meta({ description: 'its states, each with those inside it, and the ways between them' }),
    source: z
      .strictObject({ file: z.string(), sha256: z.string().meta({ description: 'of the content of its module' }) })
      .nullable()
      .meta({ description: 'the module in the folder of workflows; null: it comes with Darkroom' }),
  })
  .meta({ id: 'Workflow' })

const Pixels = z.number().meta({ description: 'pixels' })

export const DrawingView = z
  .strictObject({
    width: Pixels,
    height: Pixels,
    above: Pixels.meta({ description: 'pixels over the boxes, for edges that leap over some' }),
    boxes: z
      .array(
        z.strictObject({
          id: z.string(),
          name: z.string(),
          type: stateType,
          isFailure: z.boolean(),
          steps: z.array(z.string()),
          path: z.string().meta({ description: 'names from the outermost state to it, joined by dots' }),
          isOuter: z.boolean().meta({ description: 'whether there are states inside it' }),
          depth: z.int().meta({ description: 'states around it' }),
          x: Pixels,
          y: Pixels,
          width: Pixels,
          height: Pixels,
        }),
      )
      .meta({ description: 'each before those inside it' }),
    edges: z
      .array(z.strictObject({ path: z.string().meta({ description: 'as `d` of an SVG path' }), title: z.string() }))
      .meta({ description: 'the ways between them' }),
  })
  .meta({ id: 'WorkflowDrawing' })

export const presentDrawing = ({ boxes, ...rest }: Drawing): z.infer<typeof DrawingView> => ({
  ...rest,
  boxes: boxes.map(({ id, name, type, isFailure, steps, path, isOuter, depth, x, y, width, height }) => ({
    id,
    name,
    type,
    isFailure,
    steps,
    path,
    isOuter,
    depth,
    x,
    y,
    width,
    height,
  })),
})

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
    graph: workflow.graph,
    source: workflow.source,
  }
}

export const ReloadView = z
  .strictObject({
    loaded: z.array(z.string()).meta({ description: '`name@version` of each that can be used' }),
    refused: z
      .array(
        z.strictObject({
          file: z.string(),
          workflow: z.string().nullable().meta({ description: '`name@version`; null: the whole module is refused' }),
          error: ErrorView,
        }),
      )
      .meta({ description: 'what cannot be used, and why; all else can' }),
  })
  .meta({ id: 'WorkflowReload' })

export const presentReload = ({ loaded, refused }: OwnReport): z.infer<typeof ReloadView> => ({
  loaded,
  refused: refused.map(({ file, workflow, error }) => ({ file, workflow, error: presentError(error.toWire()) })),
})
