import type { AnyStateMachine } from 'xstate'
import type { z } from 'zod'
import type { Catalogue, Route } from '../domains/operation.ts'

export type { Catalogue } from '../domains/operation.ts'

/** A workflow: a machine whose invoked actors are durable steps, with what a client may send and what comes back. */
export interface Workflow {
  name: string
  /** Goes up when running sessions could not continue on the changed machine. */
  version: number
  title: string
  description: string
  /** What a client may send. */
  input: z.ZodType
  output: z.ZodType
  machine: AnyStateMachine
  /** Whether its pictures are promised to the byte: the first step on a GPU then pins the exactness key. */
  exact: boolean
  /** Fills in what the client left out; the result is the session's input and never changes. */
  makeWhole(input: unknown, catalogue: Catalogue): Promise<Record<string, unknown>>
  /** How far the whole session is (0…1) when `step` has done `fraction` of its work, and which image that is, from 1. */
  progress(context: unknown, step: string, fraction: number): { fraction: number; image?: number; images?: number }
  /** Whether a session with this input waits for its pinned hardware class until the deadline; it does not when left out. */
  isStrict?(input: Record<string, unknown>): boolean
  /** How many steps a session with this input takes, for the memory its history will need; ten when the workflow does not say. */
  steps?(input: Record<string, unknown>): number
  /** Its own route in the HTTP API, beside `POST /v1/sessions`. */
  route?: Route
  /** Only callers with this scope may submit it. */
  scope?: 'operate'
  /** What one run takes at its largest, in words of the reader. */
  resources: { lanes: string[]; note: string }
}

export const workflowId = (workflow: Pick<Workflow, 'name' | 'version'>): string => `${workflow.name}@${workflow.version}`
