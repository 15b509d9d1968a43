import { z } from 'zod'
import type { ArtifactKind, ArtifactStore } from '../artifacts.ts'
import { DarkroomError } from '../errors.ts'
import type { Model } from '../models.ts'
import type { AllocationInfo, AllocationRequest, DeviceMemory } from './device-memory.ts'

/** One worker of one device, in one epoch: whom an operation of lane `control` is for. What it speaks of goes when the epoch ends. */
export const Target = z.strictObject({ device: z.string(), worker: z.string(), epoch: z.string() })
export type Target = z.infer<typeof Target>

/** What a command is for is gone: unlike the step of a picture it has no other place to go. */
export const deviceLost = (message: string): DarkroomError =>
  new DarkroomError('device.lost', message, {
    remedy: 'What a device held goes with its worker; submit the session again for the worker that is there now.',
  })

/** What decides the bits of a picture: equal keys, equal bytes. `facts` is what the key is the hash of. */
export interface Exactness {
  key: string
  facts: Record<string, unknown>
}

export interface StepProgress {
  stage: string
  call?: number | undefined
  calls?: number | undefined
  rate?: number | undefined
  etaS?: number | undefined
}

export interface PythonResult {
  output: Record<string, unknown>
  /** SHA-256 of each file the child made, kept as scratch artifacts. */
  files: Record<string, string>
}

/** What an operation of lane `control` gets: the worker's device and what it holds of it. */
export interface DeviceTools extends Target {
  readonly memory: DeviceMemory
  /** Of the device in `memory.devices()`; null when `memory` is system RAM because the addon does not reach the device. */
  readonly index: number | null
  /** After the ladder of memory pressure has made room. @throws DarkroomError `memory.exhausted` with figures, `device.unavailable` */
  allocate(request: Omit<AllocationRequest, 'device'>): Promise<AllocationInfo>
  /** @throws DarkroomError `memory.unknown` */
  release(id: number): Promise<AllocationInfo>
  /** Whose an owner's allocations are, as `key:<id>` or `key:local`. */
  principal(owner: string): Promise<string>
  /**
   * Empties the caches of Python's allocator, and lets go of up to so many idle models, least recently used first. null without a child, and
   * when a step keeps the child from it for some seconds: it is done when that step ends.
   */
  trimPython(idleModels: number): Promise<{ freedBytes: number | null; models: string[] } | null>
  /** What the Python child holds now; null without one. */
  python(): Promise<{ reservedBytes: number | null; models: string[] } | null>
  /** Takes the figures and publishes them now; answers when they were taken. */
  publish(): Promise<number>
}

/** What an operation gets from the worker that runs it. */
export interface Tools {
  readonly sessionId: string
  /** Aborted when the attempt must stop: cancelled, or its lease is lost. */
  readonly signal: AbortSignal
  readonly artifacts: ArtifactStore
  readonly exactness: Exactness
  /** Keeps bytes; the commit of the step's result names them. Returns their SHA-256. */
  keep(bytes: Uint8Array, kind: ArtifactKind): Promise<string>
  /** The model of that name in this worker's folders. @throws DarkroomError `model.unknown`, `model.changed` */
  model(id: string, bodyHash: string): Promise<Model>
  /**
   * Calls the operation of the same name in the Python child, with input artifacts by name. A file whose bytes are missing or broken is
   * left out: the child makes it again or refuses with `artifact.missing`. Goes on from the step's last good checkpoint.
   */
  python(input: Record<string, unknown>, files: Record<string, string | null>): Promise<PythonResult>
  progress(progress: StepProgress): void
  /** The worker's device. @throws DarkroomError `device.lost` when the target is another worker, or another epoch of this device */
  device(target: Target): DeviceTools
  /** Called when nobody will hear of this attempt's result: it takes back what the result would have named. */
  undo(act: () => Promise<void>): void
  /** A sentence for the receipt. */
  note(text: string): Promise<void>
}

export type Lane = 'gpu' | 'host' | 'control'

/** An operation: what one step does. Its name, `domain.verb`, is the same in machines, jobs, frames and Python. */
export interface Operation<Input = unknown, Output = unknown> {
  input: z.ZodType<Input>
  output: z.ZodType<Output>
  /**
   * `gpu`: one at a time, on the device; `host`: CPU work beside it; `control`: a command to one worker, the `target` of its input. It is
   * taken within ten seconds or fails, never moves, and is never tried again.
   */
  lane: Lane
  /** Tries of a transient error. */
  attempts: number
  timeoutMs: number
  /** Parses the input, then runs. @throws ZodError when a machine hands over something else than the schema says. */
  run(input: unknown, tools: Tools): Promise<Output>
}

export function operation<Input, Output>(
  definition: Omit<Operation<Input, Output>, 'run'> & { run: (input: Input, tools: Tools) => Promise<Output> },
): Operation<Input, Output> {
  return { ...definition, run: (input, tools) => definition.run(definition.input.parse(input), tools) }
}

/** Operations by step name: what a worker runs and a machine names. */
export type OperationTable = Readonly<Record<string, Operation>>
