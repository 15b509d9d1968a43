import { device } from './device/index.ts'
import { inference } from './inference/index.ts'
import { memory } from './memory/index.ts'
import { model } from './model/index.ts'
import type { OperationTable } from './operation.ts'
import { postprocessing } from './postprocessing/index.ts'

/** Every step there is, by its one name. */
export const operations = { ...device, ...memory, ...model, ...inference, ...postprocessing } satisfies OperationTable

export type Operations = typeof operations
export type StepName = keyof Operations
