/**
 * Workflows of one's own: every module that lies in the folder itself. A module that cannot be used is refused by name
 * and keeps none of the others from being used.
 */
import { readdir } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { z } from 'zod'
import type { OperationTable } from '../../domains/operation.ts'
import { cut, ensureError, workflowError, type DarkroomError } from '../../errors.ts'
import { faultsOf } from '../check.ts'
import { workflowId, type Workflow } from '../define.ts'
import { bundle } from './bundle.ts'
import { evaluate } from './module.ts'

export interface OwnWorkflow {
  workflow: Workflow
  /** Name of its module in the folder. */
  file: string
  /** Of the content of its module: hex. */
  sha256: string
}

export interface Refused {
  file: string
  /** `name@version`; null when the whole module is refused. */
  workflow: string | null
  error: DarkroomError
}

export interface OwnWorkflows {
  loaded: OwnWorkflow[]
  refused: Refused[]
}

/** Characters of a fault that are told. */
const maxWords = 1000

/**
 * Reads the folder.
 * @throws DarkroomError `workflow.unloadable` when there is no such folder
 */
export async function readFolder(folder: string, builtIn: readonly Workflow[], operations: OperationTable): Promise<OwnWorkflows> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    throw workflowError('unloadable', `DARKROOM_WORKFLOWS is ${folder}: ${error.message}`, { cause: error })
  })
  const files = entries.filter((entry) => !entry.isDirectory() && /(?<!\.d)\.m?[jt]s$/.test(entry.name)).map(({ name }) => name)
  const refused: Refused[] = []
  const found: OwnWorkflow[] = []
  for (const file of files.toSorted()) {
    try {
      const made = await bundle(join(folder, file))
      found.push(...evaluate(made).map((workflow) => ({ workflow, file: basename(file), sha256: made.sha256 })))
    } catch (error) {
      refused.push({ file, workflow: null, error: told(ensureError(error, 'workflow.unloadable'), file) })
    }
  }
  // Who is refused may be what another names as its child.
  for (let left = found; ;) {
    const ids = new Set([...builtIn, ...left.map(({ workflow }) => workflow)].map(workflowId))
    const good = left.filter((own, i) => {
      const faults = [...faultsOfOwn(own, builtIn, left.slice(0, i)), ...faultsOf(own.workflow, [...ids], operations)]
      if (faults.length > 0)
        refused.push({
          file: own.file,
          workflow: workflowId(own.workflow),
          error: told(workflowError('unloadable', faults.join('; ')), own.file),
        })
      return faults.length === 0
    })
    if (good.length === left.length) return { loaded: good, refused }
    left = good
  }
}

function faultsOfOwn({ workflow }: OwnWorkflow, builtIn: readonly Workflow[], before: readonly OwnWorkflow[]): string[] {
  const id = workflowId(workflow)
  const twin = before.find((own) => workflowId(own.workflow) === id)
  return [
    ...(builtIn.some(({ name }) => name === workflow.name) ? [`${workflow.name} is the name of a workflow that comes with Darkroom`] : []),
    ...(twin ? [`${id} is in ${twin.file} too`] : []),
    ...(workflow.route ? [`${id} asks for a route: sessions of it are submitted at /v1/sessions`] : []),
    ...(['input', 'output'] as const).flatMap((side) => {
      try {
        z.toJSONSchema(workflow[side], { io: side, unrepresentable: 'any' })
        return []
      } catch (error) {
        return [`the ${side} schema of ${id} cannot be shown: ${(error as Error).message}`]
      }
    }),
  ]
}

const told = (error: DarkroomError, file: string): DarkroomError =>
  workflowError('unloadable', cut(`${file}: ${error.message}`, maxWords), { cause: error })
