import { deviceWorkflows } from './device.ts'
import { imageGeneration } from './image-generation.ts'
import { memoryTransfer } from './memory-transfer.ts'
import { memoryWorkflows } from './memory.ts'
import type { Workflow } from './workflow.ts'

export type { Catalogue, Workflow } from './workflow.ts'
export { workflowId } from './workflow.ts'

/** Workflows that come with Darkroom. */
export const workflows: readonly Workflow[] = [imageGeneration, ...deviceWorkflows, ...memoryWorkflows, memoryTransfer]
