import { deviceWorkflows } from './built-in/device.ts'
import { imageGeneration } from './built-in/image-generation.ts'
import { memoryTransfer } from './built-in/memory-transfer.ts'
import { memoryWorkflows } from './built-in/memory.ts'
import type { Workflow } from './define.ts'

export type { Catalogue, Workflow } from './define.ts'
export { workflowId } from './define.ts'

/** Workflows that come with Darkroom. */
export const workflows: readonly Workflow[] = [imageGeneration, ...deviceWorkflows, ...memoryWorkflows, memoryTransfer]
