import type { z } from 'zod'
import type { ArtifactKind, ArtifactStore, Writing } from '../artifacts/store.ts'
import type { DarkroomError } from '../errors.ts'
import type { Entry, Model } from '../models/entry.ts'
import type { Listed } from '../models/listing.ts'
import type { Meant } from '../models/meant.ts'
import type { Kind } from '../models/verdict.ts'
import type { Conversion } from '../models/conversion.ts'
import type { Stored } from '../models/storing.ts'
import type { Validation } from '../models/validate.ts'
import type { AllocationInfo, AllocationRequest, DeviceMemory } from './device-memory.ts'
import { deviceError } from './device/errors.ts'
import type { Policy, PolicyRef } from './postprocessing/safety/policy.ts'
import type { FastSupport, PictureLimits } from './device/status.ts'
import type { Exactness, ModelPin, PicturePin, ShelvedModel, Target, WantedModel } from './values.ts'
import type { CachedModel } from './model/cached.ts'

/** What a command is for is gone: unlike the step of a picture it has no other place to go. */
export const deviceLost = (message: string): DarkroomError =>
  deviceError('lost', message, {
    remedy: 'What a device held goes with its worker; submit the session again for the worker that is there now.',
  })

export interface StepProgress {
  stage: string
  call?: number | undefined
  calls?: number | undefined
  rate?: number | undefined
  etaS?: number | undefined
}

export interface PythonResult {
  /** As the `output` of the operation's part in Python declares it. */
  output: unknown
  /** SHA-256 of each file the child made, kept as scratch artifacts. */
  files: Record<string, string>
  /** Body hash of the model that it used; null where it needs none. */
  bodyHash: string | null
  /** How its models came to the device before; 0 seconds when it was there. */
  load: { wasResident: boolean; seconds: number; ramBytes: number; diskBytes: number }
}

/** What an operation of lane `control` gets: the worker's device and what it holds of it. */
export interface DeviceTools extends Target {
  readonly memory: DeviceMemory
  /**
   * Of the device in `memory.devices()`; null when `memory` is system RAM because the addon does not reach the device.
   */
  readonly index: number | null
  /**
   * After relief steps have made room.
   * @throws DarkroomError `memory.exhausted` with figures, `device.unavailable`
   */
  allocate(request: Omit<AllocationRequest, 'device'>): Promise<AllocationInfo>
  /** @throws DarkroomError `memory.unknown` */
  release(id: number): Promise<AllocationInfo>
  /** Whose an owner's allocations are, as `key:<id>` or `key:local`. */
  principal(owner: string): Promise<string>
  /**
   * Empties the caches of Python's allocator, and lets go of up to so many idle models, least recently used first. null
   * without a child, and when a step keeps the child from it for some seconds: it is done when that step ends.
   */
  trimPython(idleModels: number): Promise<{ freedBytes: number | null; models: string[] } | null>
  /**
   * Lets go of a model in Python, in every body that no step uses or waits for; of that kind alone where one is said.
   * @throws DarkroomError `model.in_use`; `device.not_ready` without a child
   */
  dropModel(id: string, kind?: Kind): Promise<{ models: { id: string; bytes: number }[]; freedBytes: number | null }>
  /**
   * Lets go of a model in the worker's RAM, in every body; of that kind alone where one is said. Returns what went.
   */
  evictCached(id: string, kind?: Kind): CachedModel[]
  /** What the Python child holds now; null without one. */
  python(): Promise<{ reservedBytes: number | null; models: string[] } | null>
  /** Takes the figures and publishes them now; answers when they were taken. */
  publish(): Promise<number>
}

/** What an operation may do with models as they lie in the folders of the worker's host. */
export interface ShelfTools {
  /**
   * A model with a verdict that is read anew off its headers.
   * @throws DarkroomError `model.missing` when it is not there: the step goes to a worker that has it
   */
  lying(wanted: ShelvedModel): Promise<Entry>
  /**
   * The pin of a model, whose body hash is computed when it is not known; progress tells how far that is.
   * @throws DarkroomError `model.missing`, `model.unreadable`
   */
  hashed(wanted: ShelvedModel): Promise<ModelPin>
  /**
   * A model, read whole, with progress in bytes.
   * @throws DarkroomError `model.missing`, `model.unreadable`
   */
  validated(wanted: ShelvedModel): Promise<Validation>
  /**
   * Makes safetensors of a pickle, in a process of its own that is closed off.
   * @throws DarkroomError `model.pickle_refused`, `model.not_converted`, `model.exists`, `model.unusable`
   */
  converted(wanted: ShelvedModel): Promise<Conversion>
  /**
   * Puts a LoRA that was made here into a model folder of this host.
   * @throws DarkroomError `model.exists`, `model.not_stored`
   */
  stored(name: string, content: Uint8Array): Promise<Stored>
  /**
   * Reads a model into the worker's RAM, with progress in MiB.
   * @throws DarkroomError `memory.exhausted`, `model.changed`, and as `hashedModel`
   */
  cached(wanted: Pick<WantedModel, 'id' | 'kind'>): Promise<CachedModel>
  /** Keeps the figures of a model on this worker's hardware class; those before go. */
  recordBenchmark(bodyHash: string, figures: unknown): Promise<void>
}

/** A file that is open for reading, until it is disposed of. */
export interface OpenFile extends AsyncDisposable {
  /** Its descriptor, which threads may read by. */
  fd: number
  bytes: number
}

/** What an operation gets from the worker that runs it. */
export interface Tools {
  readonly sessionId: string
  /** Aborted when the attempt must stop: cancelled, or its lease is lost. */
  readonly signal: AbortSignal
  readonly artifacts: ArtifactStore
  readonly exactness: Exactness
  /** The same with settings of this piece of work alone, which move bits. */
  exactnessWith(settings: Record<string, boolean | string>): Exactness
  /**
   * The bytes of an artifact; of what the session's last step has left on this worker, before they are in the store.
   * @throws DarkroomError `artifact.missing`, `artifact.corrupt`
   */
  read(sha256: string): Promise<Buffer>
  /** The file of what the session's last step has left on this worker; undefined for another artifact. */
  open(sha256: string): Promise<OpenFile | undefined>
  /**
   * Keeps bytes; the commit of the step's result names them. Returns their SHA-256. Of a picture a thumbnail is made
   * and kept beside what follows.
   */
  keep(bytes: Uint8Array | Writing, kind: ArtifactKind): Promise<string>
  /**
   * Keeps a picture that no session names: only operators see it, for so many seconds, an hour at most. At 0 nothing is
   * kept. Returns its SHA-256.
   */
  withhold(png: Uint8Array, seconds: number): Promise<string>
  /**
   * The model in this worker's folders, as it lies there now.
   * @throws DarkroomError `model.missing` when it is not there: the step goes to a worker that has it
   */
  model(wanted: WantedModel): Promise<Model>
  /** What lies in this worker's folders, whether it draws or not. */
  readonly shelf: ShelfTools
  /**
   * The model with its body hash, which is computed when it is not known; progress tells how far that is.
   * @throws DarkroomError `model.missing`, `model.unreadable`
   */
  hashedModel(id: string): Promise<Model & ModelPin>
  /**
   * Calls the operation of the same name in the Python child, with input artifacts by name. A file whose bytes are
   * missing or broken is left out: the child makes it again or refuses with `artifact.missing`. Goes on from the step's
   * last good checkpoint. The models that the step `needs` are made resident before.
   */
  python(input: Record<string, unknown>, files: Record<string, string | null>): Promise<PythonResult>
  progress(progress: StepProgress): void
  /**
   * The worker's device.
   * @throws DarkroomError `device.lost` when the target is another worker, or another epoch of this device
   */
  device(target: Target): DeviceTools
  /**
   * Registers a compensation: `act` runs when this attempt's result is abandoned, and releases what the result would
   * have named.
   */
  onAbandoned(act: () => Promise<void>): void
  /** A sentence for the receipt. */
  note(text: string): Promise<void>
}

/**
 * What a step needs before it can run, by its own input: placement, recovery and reservation read it, and nothing else
 * of the step.
 */
export interface Needs {
  /** Models that its worker's host must have; a step on the device has them loaded before it runs. */
  models?: readonly WantedModel[]
  /** Room for the files that it writes before it has ended, bytes. */
  fileBytes?: number
  /** The one worker that a command is for. */
  target?: Target
}

/** What a request may look up while it is completed; never later. `field` is what a refusal names. */
export interface Catalogue {
  /**
   * A model that pictures can be drawn with, by its headers and configurations. Its body hash is null until it has been
   * hashed: a step does that (`model.hash`), never the submit.
   * Of several that draw and have that name the first, or the one of that kind.
   * @throws DarkroomError `model.unknown`, `model.unusable`; `model.unhashed` for one that a kind alone tells apart
   */
  model(name: string, kind?: Kind): Promise<Model>
  /**
   * A picture that the caller may see: one that it has uploaded, or one of a session. The new session names it from its
   * beginning.
   * @throws DarkroomError `artifact.unknown`
   */
  picture(sha256: string, field: string): Promise<PicturePin & { hasAlpha: boolean }>
  /**
   * A model of any kind, whether it draws or not. Of several with that name the one of that kind; without a kind the
   * one that draws, else the one that is understood.
   * @throws DarkroomError `model.unknown`, `model.ambiguous`
   */
  named(name: string, kind?: Meant): Promise<Listed>
  /**
   * A model of one kind, that was understood. Its hash is asked for when it is not known.
   * @throws DarkroomError `model.unknown` with the nearest names, `model.unusable`; `model.unlisted` while a host has
   * not told what it has
   */
  ofKind(kind: Kind, name: string, field: string): Promise<Listed>
  /**
   * Every model of one kind that was understood.
   * @throws DarkroomError `model.unlisted` while a host has not told what it has, and no other has any
   */
  all(kind: Kind, field: string): Promise<readonly Listed[]>
  /**
   * Pictures of a session that the caller may see, in the order of its items: null for an item that has none.
   * `columns`: how many stand in a row where the items are a grid, else null.
   * @throws DarkroomError `session.unknown`
   */
  results(session: string, field: string): Promise<{ pictures: (string | null)[]; columns: number | null }>
  /** A whole number below `below`, drawn by chance. */
  draw(below: number): number
  /**
   * The worker of a device now, in its epoch. Without a name: of the caller's default device, else of the only one
   * there is.
   * @throws DarkroomError `device.unknown`; `api.invalid` when nothing says which
   */
  device(name: string | undefined, field: string): Promise<Target>
  /**
   * The smallest limits of the workers that may draw with this model: on the session's device, or on any of them. Null
   * while none is here.
   */
  limits(model: WantedModel): Promise<PictureLimits | null>
  /** What the class `fast` means on each device that may draw with this model; none while no worker is here. */
  fast(model: WantedModel): Promise<{ device: string; fast: FastSupport }[]>
  /** What there is in all of a device's memory and of its host's RAM, in bytes; null where unknown. */
  capacity(target: Target): Promise<{ device: number | null; ram: number | null }>
  /**
   * The policies that judge the caller's pictures now: its own or everybody's, and the one that it names.
   * @throws DarkroomError `safety.policy_unknown`, `safety.policy_inactive`
   */
  policies(named: string | undefined, field: string): Promise<(PolicyRef & { policy: Policy })[]>
  /**
   * A version of a policy; without a number the one in force.
   * @throws DarkroomError `safety.policy_unknown`, `safety.policy_inactive`
   */
  policy(name: string, version: number | undefined, field: string): Promise<PolicyRef & { policy: Policy }>
  /** The caller's API key; null for this machine's user. */
  readonly keyId: string | null
  /** Whether the caller may touch what others own. */
  readonly mayOperate: boolean
}

/** The HTTP form of a workflow that clients may run by a route of its own, behind `/v1`. */
export interface Route {
  method: 'post' | 'delete'
  /** `/memory/allocations/{id}`: what is in braces is a field of the input, the other fields are the body. */
  path: string
  /** Fields of the input that come in the query; none is required. */
  query?: readonly string[]
  /** Fields of the path that the input calls otherwise, as `{ id: 'device' }`. */
  params?: Readonly<Record<string, string>>
  /** Name of the body in the OpenAPI document; none where every field is in the path. */
  body?: string
  /** False where the body may be left out. */
  isBodyRequired?: boolean
  /** Fields that errors of its steps call otherwise than the input does, as `{ id: 'from' }`. */
  fields?: Readonly<Record<string, string>>
  /** What the answer is, in words: `The allocation`. */
  answers: string
}

/**
 * What clients may ask of an operation: from it follow its one-step workflow, its route, its OpenAPI entry and the
 * client's method.
 */
export interface Command<Given = unknown, Input = unknown> {
  title: string
  description: string
  /** Only callers with this scope may ask for it. */
  scope?: 'operate'
  /** What a client may send. */
  input: z.ZodType<Given>
  /** The operation's input, from what the client sent. */
  resolve(given: Given, catalogue: Catalogue): Promise<Input>
  route: Route
}

/** What of an operation runs in the Python child, under the same name. */
export interface PythonPart {
  /**
   * What it is asked, besides its files: Python checks it with the schema that this one generates. A field `model` is a
   * pin, or asks for one; the child is told the folder and the family as well, and of a ControlNet in `control`.
   */
  input: z.ZodObject
  /** What it answers besides its files; nothing when left out. */
  output?: z.ZodType
  /** Files it may be given, by name; or as many as there are, by one name and their number: `picture0`, `picture1` … */
  files?: readonly string[] | { numbered: string }
  /** Files it makes. */
  makes?: readonly string[]
  /** Whether it checkpoints: a paused or lost one goes on where it was. */
  resumes?: boolean
}

export type Lane = 'gpu' | 'host' | 'control'

/** An operation: what one step does. Its name, `domain.verb`, is the same in machines, jobs, frames and Python. */
export interface Operation<Input = unknown, Output = unknown> {
  input: z.ZodType<Input>
  output: z.ZodType<Output>
  /**
   * `gpu`: one at a time, on the device; `host`: CPU work beside it; `control`: a command to one worker, the `target`
   * of its input. It is taken within ten seconds or fails, never moves, and is never tried again.
   */
  lane: Lane
  /** Tries of a transient error. */
  attempts: number
  timeoutMs: number
  /**
   * It may begin before the commit that asks for it, on the worker that brings the session's last result: it does
   * nothing but make artifacts, which only its own result names.
   */
  ahead?: true
  /**
   * Of the lane `gpu`: a session most often has no step on the device behind it. The next one there, of another
   * session, begins when Python has answered, while the result is being recorded.
   */
  leavesDevice?: true
  /** Nothing when left out. */
  needs?(input: Input): Needs
  command?: Command<unknown, Input>
  python?: PythonPart
  /** Parses the input, then runs. @throws ZodError when a machine hands over something else than the schema says. */
  run(input: unknown, tools: Tools): Promise<Output>
}

type Definition<Input, Output> = Omit<Operation<Input, Output>, 'run' | 'command' | 'needs'> & {
  needs?(input: NoInfer<Input>): Needs
  run: (input: Input, tools: Tools) => Promise<Output>
}

/** Declares an operation. Its domain's index gives it its name; the schemas of a command type the client's `run`. */
export function operation<Input, Output extends z.ZodType, Given extends z.ZodType>(
  definition: Definition<Input, z.output<Output>> & { output: Output; command: Command<z.output<Given>, Input> & { input: Given } },
): Operation<Input, z.output<Output>> & { output: Output; command: Command<z.output<Given>, Input> & { input: Given } }
export function operation<Input, Output>(
  definition: Definition<Input, Output> & { python: PythonPart },
): Operation<Input, Output> & { python: PythonPart }
export function operation<Input, Output>(definition: Definition<Input, Output>): Operation<Input, Output>
export function operation<Input, Output>(
  definition: Definition<Input, Output> & { command?: Command<unknown, Input> },
): Operation<Input, Output> {
  return { ...definition, run: (input, tools) => definition.run(definition.input.parse(input), tools) }
}

/** Operations by step name: what a worker runs and a machine names. */
export type OperationTable = Readonly<Record<string, Operation>>
