/** The workflows and operations that this process knows. */
import type { OperationTable } from '../domains/operation.ts'
import { workflowError } from '../errors.ts'
import { checkWorkflows, workflowId, type Workflow } from '../workflows/index.ts'
import { undoWorkflow } from '../workflows/undo.ts'
import type { OwnWorkflow } from '../workflows/own/folder.ts'
import { graphOf, toMermaid, type Graph } from './diagram.ts'
import { OwnMachine } from './own-machine.ts'
import { PureMachine } from './transition.ts'

/** Where a workflow of one's own comes from. */
export type Source = Pick<OwnWorkflow, 'file' | 'sha256'>

/** A workflow as clients may see it. */
export type WorkflowInfo = Pick<
  Workflow,
  'name' | 'version' | 'title' | 'description' | 'input' | 'output' | 'resources' | 'route' | 'scope'
> & {
  /** Mermaid text of the machine. */
  diagram: string
  graph: Graph
  /** null: it comes with Darkroom. */
  source: Source | null
}

interface Known {
  workflow: Workflow
  machine: PureMachine
  source: Source | null
  /** False of one whose module is gone: sessions under way go on, and no new one begins. */
  isOffered: boolean
}

export class Registry {
  readonly operations: OperationTable
  /** Workflows that come with Darkroom. */
  readonly builtIn: readonly Workflow[]
  /** What undoes the steps of an ended session; nobody submits it. */
  readonly undoing: Workflow
  /** By `name@version`. */
  readonly #known = new Map<string, Known>()

  /** @throws DarkroomError `workflow.broken` when a machine names a step or a child session that does not exist */
  constructor(workflows: readonly Workflow[], operations: OperationTable) {
    checkWorkflows(workflows, operations)
    this.operations = operations
    this.builtIn = workflows
    this.undoing = undoWorkflow(operations)
    for (const workflow of [...workflows, this.undoing]) {
      const isOffered = workflow !== this.undoing
      this.#known.set(workflowId(workflow), { workflow, machine: new PureMachine(workflow.machine), source: null, isOffered })
    }
  }

  /** Takes the workflows of one's own that there are now. Those that went are kept for sessions under way. */
  replaceOwn(own: readonly OwnWorkflow[]): void {
    for (const known of this.#known.values()) if (known.source) known.isOffered = false
    for (const { workflow, file, sha256 } of own) {
      const id = workflowId(workflow)
      const before = this.#known.get(id)
      // The same content stays the same machine, which sessions under way have in memory.
      if (before?.source?.sha256 === sha256) this.#known.set(id, { ...before, source: { file, sha256 }, isOffered: true })
      else this.#known.set(id, { workflow, machine: new OwnMachine(workflow.machine), source: { file, sha256 }, isOffered: true })
    }
  }

  /** Forgets one of one's own: its content is not the one that is used under its name and version. */
  forget(id: string): void {
    this.#known.delete(id)
  }

  /** By `name@version`. */
  workflow(id: string): Workflow | undefined {
    return this.#known.get(id)?.workflow
  }

  machine(id: string): PureMachine | undefined {
    return this.#known.get(id)?.machine
  }

  /** Of a workflow of one's own; null of one of Darkroom's. */
  source(id: string): Source | null {
    return this.#known.get(id)?.source ?? null
  }

  /** A workflow and its machine, by `name@version`. @throws DarkroomError `workflow.unknown` */
  known(id: string): { workflow: Workflow; machine: PureMachine } {
    const known = this.#known.get(id)
    if (!known) throw workflowError('unknown', `this process does not have ${id}`)
    return known
  }

  /**
   * The newest version of a name, or the one that `name@version` says.
   * @param field what a refusal names
   * @throws DarkroomError `workflow.unknown`
   */
  newest(name: string, field = 'workflow'): Workflow {
    const found = [...this.#known.values()]
      .filter(({ workflow, isOffered }) => isOffered && (workflow.name === name || workflowId(workflow) === name))
      .toSorted((a, b) => b.workflow.version - a.workflow.version)[0]
    if (!found) throw workflowError('unknown', `there is no workflow ${name}`, { field })
    return found.workflow
  }

  infos(): WorkflowInfo[] {
    return [...this.#known.values()]
      .filter(({ isOffered }) => isOffered)
      .map(({ workflow, source }) => ({ ...workflow, source, diagram: toMermaid(workflow.machine), graph: graphOf(workflow.machine) }))
  }
}
