/** Everything that a workflow is written with, and the workflows that come with Darkroom. */
import { operations } from '../domains/index.ts'
import { batch } from './built-in/batch.ts'
import { imageCheck } from './built-in/image-check.ts'
import { imageFaces } from './built-in/image-faces.ts'
import { imageGeneration } from './built-in/image-generation.ts'
import { imagePreprocess } from './built-in/image-preprocess.ts'
import { imageRejudge } from './built-in/image-rejudge.ts'
import { imageUpscale } from './built-in/image-upscale.ts'
import { loraTraining } from './built-in/lora-training.ts'
import { memoryTransfer } from './built-in/memory-transfer.ts'
import { modelLoading } from './built-in/model-loading.ts'
import type { Workflow } from './define.ts'
import { commandWorkflows } from './one-step.ts'

export { assign, setup, spawnChild } from 'xstate'
export { z } from 'zod'
export { batch } from './built-in/batch.ts'
export { imageGeneration } from './built-in/image-generation.ts'
export { checkWorkflows } from './check.ts'
export { child, isSession } from './child-session.ts'
export { isCommand, defineWorkflow, workflowId, type Catalogue, type Drawing, type ItemCatalogue, type Workflow } from './define.ts'
export { isItems, type Items } from './items.ts'
export { steps } from './step.ts'

/** Workflows that come with Darkroom. */
export const workflows: readonly Workflow[] = [
  imageGeneration,
  imagePreprocess,
  imageUpscale,
  imageFaces,
  imageCheck,
  imageRejudge,
  loraTraining,
  ...commandWorkflows(operations),
  memoryTransfer,
  modelLoading,
  batch,
]
