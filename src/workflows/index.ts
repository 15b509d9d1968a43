import { operations } from '../domains/index.ts'
import { imageGeneration } from './built-in/image-generation.ts'
import { memoryTransfer } from './built-in/memory-transfer.ts'
import type { Workflow } from './define.ts'
import { commandWorkflows } from './one-step.ts'

export { checkWorkflows } from './check.ts'
export { defineWorkflow, workflowId, type Catalogue, type Workflow } from './define.ts'

/** Workflows that come with Darkroom. */
export const workflows: readonly Workflow[] = [imageGeneration, ...commandWorkflows(operations), memoryTransfer]
