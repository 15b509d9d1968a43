/** Evaluates a workflow's module and finds the workflows that it exports. */
import { Script } from 'node:vm'
import * as xstate from 'xstate'
import * as zod from 'zod'
import { DarkroomError, workflowError } from '../../errors.ts'
import * as workflows from '../index.ts'
import { isWorkflow, type Workflow } from '../define.ts'
import type { Bundle, provided } from './bundle.ts'
import { globalsOfModule, purely } from './purely.ts'

/** The module shares these with Darkroom: a second copy would not know its own steps again. */
const libraries: Record<(typeof provided)[number], unknown> = { 'darkroom/workflows': workflows, xstate, zod }

type Wrapped = (module: { exports: Record<string, unknown> }, require: (name: string) => unknown, ...globals: unknown[]) => void

/** @throws DarkroomError `workflow.unloadable` when it throws, does not end, or exports no workflow */
export function evaluate({ file, code }: Bundle): Workflow[] {
  const module: Parameters<Wrapped>[0] = { exports: {} }
  const names = Object.keys(globalsOfModule)
  try {
    const wrapped = new Script(`(function (module, require, ${names.join(', ')}) {${code}\n})`, { filename: file })
    const run = wrapped.runInThisContext() as Wrapped
    purely(() => run(module, (name) => libraries[name as (typeof provided)[number]], ...Object.values(globalsOfModule)))
  } catch (error) {
    const why = error instanceof DarkroomError ? error.message : `it threw ${String(error)}`
    throw workflowError('unloadable', why, { cause: error })
  }
  const found = [...new Set(Object.values(module.exports))].filter(isWorkflow)
  if (found.length === 0) throw workflowError('unloadable', 'it exports no workflow: export what defineWorkflow returns')
  return found
}
