import { imageGeneration } from './image-generation.ts'
import type { Workflow } from './workflow.ts'

export type { Catalogue, Workflow } from './workflow.ts'
export { workflowId } from './workflow.ts'

/** Workflows that come with Darkroom. */
export const workflows: readonly Workflow[] = [imageGeneration]
