/** The workflows and operations that this process knows. */
import type { OperationTable } from '../domains/operation.ts'
import { workflowError } from '../errors.ts'
import { checkWorkflows, workflowId, type Workflow } from '../workflows/index.ts'
import { toMermaid } from './diagram.ts'
import { PureMachine } from './transition.ts'

/** A workflow as clients may see it. */
export type WorkflowInfo = Pick<
  Workflow,
  'name' | 'version' | 'title' | 'description' | 'input' | 'output' | 'resources' | 'route' | 'scope'
> & {
  /** Mermaid text of the machine. */
  diagram: string
}

export class Registry {
  readonly operations: OperationTable
  readonly #workflows: ReadonlyMap<string, Workflow>
  readonly #machines: ReadonlyMap<string, PureMachine>

  /** @throws DarkroomError `workflow.broken` when a machine names a step or a child session that does not exist */
  constructor(workflows: readonly Workflow[], operations: OperationTable) {
    checkWorkflows(workflows, operations)
    this.operations = operations
    this.#workflows = new Map(workflows.map((workflow) => [workflowId(workflow), workflow]))
    this.#machines = new Map(workflows.map((workflow) => [workflowId(workflow), new PureMachine(workflow.machine)]))
  }

  /** By `name@version`. */
  workflow(id: string): Workflow | undefined {
    return this.#workflows.get(id)
  }

  machine(id: string): PureMachine | undefined {
    return this.#machines.get(id)
  }

  /** A workflow and its machine, by `name@version`. @throws DarkroomError `workflow.unknown` */
  known(id: string): { workflow: Workflow; machine: PureMachine } {
    const [workflow, machine] = [this.#workflows.get(id), this.#machines.get(id)]
    if (!workflow || !machine) throw workflowError('unknown', `this process does not have ${id}`)
    return { workflow, machine }
  }

  /** The newest version of a name, or the one that `name@version` says. @throws DarkroomError `workflow.unknown` */
  newest(name: string): Workflow {
    const found = [...this.#workflows.values()]
      .filter((workflow) => workflow.name === name || workflowId(workflow) === name)
      .toSorted((a, b) => b.version - a.version)[0]
    if (!found) throw workflowError('unknown', `there is no workflow ${name}`, { field: 'workflow' })
    return found
  }

  infos(): WorkflowInfo[] {
    return [...this.#workflows.values()].map((workflow) => ({ ...workflow, diagram: toMermaid(workflow.machine) }))
  }
}
