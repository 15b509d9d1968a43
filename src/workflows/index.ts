/** Everything that a workflow is written with, and the workflows that come with Darkroom. */
import { operations } from '../domains/index.ts'
import { imageGeneration } from './built-in/image-generation.ts'
import { memoryTransfer } from './built-in/memory-transfer.ts'
import type { Workflow } from './define.ts'
import { commandWorkflows } from './one-step.ts'

export { assign, setup, spawnChild } from 'xstate'
export { z } from 'zod'
export { imageGeneration } from './built-in/image-generation.ts'
export { checkWorkflows } from './check.ts'
export { child } from './child-session.ts'
export { isCommand, defineWorkflow, workflowId, type Catalogue, type Workflow } from './define.ts'
export { steps } from './step.ts'

/** Workflows that come with Darkroom. */
export const workflows: readonly Workflow[] = [imageGeneration, ...commandWorkflows(operations), memoryTransfer]
