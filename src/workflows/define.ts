import type { AnyStateMachine } from 'xstate'
import { z } from 'zod'
import type { StepName } from '../domains/index.ts'
import type { Catalogue, Route } from '../domains/operation.ts'
import type { ImageRequest, WantedModel } from '../domains/values.ts'
import type { Items } from './items.ts'
import type { InputOf, OutputOf } from './step.ts'

export type { Catalogue } from '../domains/operation.ts'

type Fields = Record<string, unknown>

/** What a request for items may look up besides, while it is expanded. */
export interface ItemCatalogue extends Catalogue {
  /**
   * The newest version of a workflow, or the one that `name@version` says.
   * @throws DarkroomError `workflow.unknown`, `workflow.forbidden`
   */
  workflow(name: string, field: string): Workflow
  /**
   * A request to a workflow, made whole as it would be now; the child session will do so again.
   * @throws DarkroomError whatever the workflow refuses it with
   */
  complete(workflow: Workflow, input: unknown): Promise<Fields>
  /**
   * Lines of a file of the operator's wildcards, by its path below their folder, without extension.
   * @throws DarkroomError `api.invalid`
   */
  wildcard(name: string, field: string): Promise<readonly string[]>
}

/** A request for items, expanded: the session's input, and the items beside it. */
export interface Expanded {
  input: Fields
  items: Items
}

/** What a session draws: known before any step of it is asked. */
export interface Drawing {
  model: WantedModel
  /** What is used beside it. */
  beside: readonly WantedModel[]
  /** The denoises of one picture; `steps` are the calls of the network. */
  passes: readonly Pick<ImageRequest, 'width' | 'height' | 'steps' | 'guidance'>[]
  /** How many pictures. */
  count: number
}

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
  /** Fills in what the client left out of `input`, as parsed; the result is the session's input and never changes. */
  resolveInput(parsed: unknown, catalogue: Catalogue): Promise<Fields>
  /** In place of `resolveInput`, of one whose machine works off items. */
  expand?(parsed: unknown, catalogue: ItemCatalogue): Promise<Expanded>
  /** The request as a client would send it, of a session's input: what `resolveInput` makes the same input of. */
  asked(input: Fields): Fields
  /**
   * How far the whole session is (0…1) when `step` has done `fraction` of its work, and which image that is, from 1.
   */
  progress(context: unknown, step: string, fraction: number): { fraction: number; image?: number; images?: number }
  /** Whether a session with this input waits for its pinned hardware class until the deadline. */
  isStrict(input: Fields): boolean
  /**
   * What undoes a step or child session that has ended well, by the name of its actor source. When the session fails or
   * is cancelled, these run as steps of a session of their own, the last one first. null: nothing is to be undone.
   */
  undo: Readonly<Record<string, (done: { input: unknown; output: unknown }) => { step: string; input: unknown } | null>>
  /** What a session with this input draws, for what it takes; left out by a workflow that draws nothing itself. */
  drawing?(input: Fields): Drawing
  /** How many steps a session with this input takes, for the memory its history will need. */
  steps(input: Fields): number
  /** Its own route in the HTTP API, beside `POST /v1/sessions`. */
  route?: Route
  /** Only callers with this scope may submit it. */
  scope?: 'operate'
  /** What one run takes at its largest, in words of the reader. */
  resources: { lanes: string[]; note: string }
}

/** Steps that undo others: each is a function of what was asked and what came of it. */
export type Undo = {
  [Name in StepName]?: (done: { input: InputOf<Name>; output: OutputOf<Name> }) => UndoStep | null
}
type UndoStep = { [Name in StepName]: { step: Name; input: InputOf<Name> } }[StepName]

/** What its author says of a workflow: a name, what it takes, and its machine. */
export interface WorkflowDefinition<
  Name extends string,
  Version extends number,
  Input extends z.ZodType,
  Output extends z.ZodType,
> extends Partial<Omit<Workflow, 'input' | 'output' | 'resolveInput' | 'expand' | 'name' | 'version' | 'machine' | 'undo'>> {
  /** Words of lower-case letters and digits, joined by dashes. */
  name: Name
  version?: Version
  input: Input
  output?: Output
  machine: AnyStateMachine
  undo?: Undo
  /** By default the session's input is what the client sent, with the defaults of `input`. */
  resolveInput?(given: z.output<Input>, catalogue: Catalogue): Promise<Fields>
  expand?(given: z.output<Input>, catalogue: ItemCatalogue): Promise<Expanded>
}

/** A workflow with its name, version and schemas as types, for the machines that run it as a child session. */
export type Defined<Name extends string, Version extends number, Input extends z.ZodType, Output extends z.ZodType> = Workflow & {
  name: Name
  version: Version
  input: Input
  output: Output
}

const made = new WeakSet<object>()

/** Whether `defineWorkflow` has made it. */
export const isWorkflow = (value: unknown): value is Workflow => typeof value === 'object' && value !== null && made.has(value)

/** How many steps a session is reckoned with when its workflow does not say. */
const usualSteps = 10

/**
 * Makes a workflow of a machine. Left out, the version is 1, the title is the name, the output is any object, a picture
 * is not promised to the byte, and a session is as far as its step.
 * @throws Error when the name is none
 */
export function defineWorkflow<
  const Name extends string,
  Input extends z.ZodType,
  Output extends z.ZodType = z.ZodRecord<z.ZodString, z.ZodUnknown>,
  const Version extends number = 1,
>({ name, input, machine, undo = {}, ...more }: WorkflowDefinition<Name, Version, Input, Output>): Defined<Name, Version, Input, Output> {
  if (!/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/.test(name))
    throw new Error(`the name of a workflow is like image-generation, not ${JSON.stringify(name)}`)
  const words = name.replaceAll('-', ' ')
  const workflow = {
    name,
    version: 1 as Version,
    title: words.charAt(0).toUpperCase() + words.slice(1),
    description: '',
    output: z.record(z.string(), z.unknown()) as unknown as Output,
    exact: false,
    asked: (given: Fields) => given,
    progress: (_context: unknown, _step: string, fraction: number) => ({ fraction }),
    isStrict: () => false,
    steps: () => usualSteps,
    resources: { lanes: ['host'], note: '' },
    ...more,
    undo: undo as Workflow['undo'],
    input,
    machine,
    // Parsed once, by the engine: a schema that transforms would not take its own output.
    resolveInput: async (parsed: unknown, catalogue: Catalogue) =>
      more.resolveInput ? more.resolveInput(parsed as z.output<Input>, catalogue) : (parsed as Fields),
    ...(more.expand && {
      expand: async (parsed: unknown, catalogue: ItemCatalogue) => more.expand?.(parsed as z.output<Input>, catalogue) as Promise<Expanded>,
    }),
  }
  made.add(workflow)
  return workflow
}

/** Of what a state invokes: a step or a child session by its name; one without a name is none. */
export const nameOf = (src: unknown): string => (typeof src === 'string' ? src : 'an actor without a name')

export const workflowId = (workflow: Pick<Workflow, 'name' | 'version'>): string => `${workflow.name}@${workflow.version}`

/** Whether it is nothing but a command to the worker of one device. */
export const isCommand = ({ resources: { lanes } }: Pick<Workflow, 'resources'>): boolean =>
  lanes.length > 0 && lanes.every((lane) => lane === 'control')
