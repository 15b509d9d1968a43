/**
 * What a worker node and its Python child say to each other: one JSON object a line, `{request_id, action, data}`, at
 * most 1 MiB. Fields are snake_case on the wire and camelCase here; this file is the only place that turns one into the
 * other. What users name (`opaque` below) keeps its names. `wire.ts` writes all of it down for Python,
 * `test/fixtures/protocol/` holds one message of every kind.
 *
 * The verbs `worker.*`, `model.ensure`, `model.drop`, `model.uncache` and `memory.trim` are declared here; what steps
 * ask for follows from the `python` part of their operations. Every request ends in exactly one terminal frame:
 * `result`, `released` (after a pause) or `error`. Frames that answer no request (the greeting and the heartbeat) carry
 * the request id `0`.
 */
import { z } from 'zod'
import { operations } from '../../domains/index.ts'
import type { PythonPart } from '../../domains/operation.ts'
import { preprocessorWith } from '../../domains/preprocessors.ts'
import { AdapterPin, Control, Count, EmbeddingPin, MemoryProfile, ModelPin, PicturePin, Sha256, upscalers } from '../../domains/values.ts'
import { DarkroomError, errorClasses, workerError } from '../../errors.ts'
import { loadable } from '../../models/families.ts'
import { ModelPart } from '../../models/made.ts'
import { Heartbeat, protocolVersion, Ready, Seconds } from './described.ts'
import { Stats } from './stats.ts'

export { Heartbeat, protocolVersion, Ready, Stats }

/** Longest line either side may send, newline included, in bytes. */
export const lineCap = 1_048_576

/** How often the child tells its figures, unasked. */
export const heartbeatS = 2

/** Absolute. */
const Path = z.string().regex(/^\/[^\0]*$/)

/**
 * A pinned model as the child is told of it: `path` is this worker's, `family` decides how it is loaded and what it
 * computes, and is its kind for one that is loaded beside a model. `parts` are those that are no folders in `path`;
 * absent for a diffusers folder. All paths lie in `roots.models`.
 */
export const ModelRef = z.strictObject({
  id: z.string(),
  path: Path,
  bodyHash: Sha256,
  family: z.enum(loadable),
  parts: z.array(ModelPart).optional(),
})
export type ModelRef = z.infer<typeof ModelRef>

/** Files that are used beside a model, with their paths on this host, which lie in `roots.models`. */
const FileRef = ModelPin.extend({ path: Path })
export const AdapterRef = AdapterPin.extend({ model: FileRef })
export type AdapterRef = z.infer<typeof AdapterRef>
export const EmbeddingRef = EmbeddingPin.extend({ model: FileRef })
export type EmbeddingRef = z.infer<typeof EmbeddingRef>
/** Of a classifier and a detector a folder, with configuration and manifest; of a restorer a file. */
export const ClassifierRef = FileRef.omit({ vae: true })
export type ClassifierRef = z.infer<typeof ClassifierRef>

/**
 * A file of weights in the worker's cache. `path`: the file, without links; `mapping`: a path under which the child
 * opens the cached bytes, which never change, and `inode` what it finds there.
 */
export const CachedFile = z.strictObject({ path: Path, mapping: Path, bytes: Count, inode: Count })
export type CachedFile = z.infer<typeof CachedFile>

/** A file the node hands to the child. `path` is absolute and inside `roots.attempts`. */
export const FileGiven = z.strictObject({ path: Path, sha256: Sha256 })
export type FileGiven = z.infer<typeof FileGiven>

/** A complete file the child made, inside the attempt's folder. */
export const FileMade = z.strictObject({ path: Path, sha256: Sha256, bytes: Count })
export type FileMade = z.infer<typeof FileMade>

/** `call` is the number of denoise calls that are done. */
export const CheckpointGiven = z.strictObject({ path: Path, sha256: Sha256, call: Count })
export type CheckpointGiven = z.infer<typeof CheckpointGiven>
export const CheckpointMade = z.strictObject({ path: Path, sha256: Sha256, bytes: Count, call: Count })
export type CheckpointMade = z.infer<typeof CheckpointMade>

/** How the picture looks after so many calls: RGB8, row by row, width · height · 3 bytes. */
export const PreviewMade = FileMade.extend({ call: Count, ...PicturePin.pick({ width: true, height: true }).shape })
export type PreviewMade = z.infer<typeof PreviewMade>

/** What the node tells the child about itself; `protocol`, `schema` and `spare` are added by the sender. */
export const Hello = z.strictObject({
  workerId: z.string(),
  /** `cpu`, `cuda`, `cuda:0`, … */
  device: z.string(),
  threads: z.int().min(1),
  /** How many requests of one model it runs at a time. */
  slots: z.int().min(1),
  /** `compiled`: where what is compiled is kept for the next process; an owner-only folder. */
  roots: z.strictObject({ models: z.array(Path), attempts: Path, compiled: Path.nullable() }),
  checkpoint: z.strictObject({ intervalS: Seconds, calls: z.int().min(1).nullable() }),
  /** Least time between two previews; 0 makes none. */
  previewS: Seconds,
  /** The most that resident models may take; null: by what the device has free. */
  modelBytes: Count.nullable(),
})
export type Hello = z.infer<typeof Hello>

const Nothing = z.strictObject({})
/** Which request is meant. */
const RequestRef = z.strictObject({ target: z.string() })

/** The protocol's own verbs: what the node may ask, and the `output` of the child's `result`. */
const verbs = {
  /** A `spare` answers when it has been taken into use by `worker.open`; till then it imports and waits. */
  'worker.hello': {
    request: Hello.extend({ protocol: z.strictObject({ min: z.int(), max: z.int() }), schema: Sha256, spare: z.boolean() }),
    output: Ready,
  },
  'worker.open': { request: Nothing, output: Nothing },
  'worker.ping': { request: Nothing, output: Heartbeat },
  'worker.pause': { request: RequestRef, output: Nothing },
  'worker.cancel': { request: RequestRef, output: Nothing },
  'worker.shutdown': { request: Nothing, output: Nothing },
  /**
   * `files`: what the worker's cache in RAM holds of it; `weightBytes`: of all files of its weights, by which progress
   * is told, 0 for none. `resident`: it already was; `seconds` is the time the load
   * took, which read so many bytes from RAM (`registered` ones straight from memory that the device's driver knows) and
   * from disk.
   */
  'model.ensure': {
    request: z.strictObject({
      model: ModelRef,
      files: z.array(CachedFile),
      weightBytes: Count,
      memoryProfile: MemoryProfile.optional(),
    }),
    output: z.strictObject({
      id: z.string(),
      resident: z.boolean(),
      bytes: Count,
      seconds: Seconds,
      ramBytes: Count,
      diskBytes: Count,
      registeredBytes: Count,
    }),
  },
  /**
   * Lets go of a model, in every body that no request uses or waits for; null: whichever family loads it. `freedBytes`
   * as in `memory.trim`.
   */
  'model.drop': {
    request: z.strictObject({ id: z.string(), families: z.enum(loadable).array().nullable() }),
    output: z.strictObject({ freedBytes: Count.nullable(), models: z.array(z.strictObject({ id: z.string(), bytes: Count })) }),
  },
  /** The cache lets go of these files, which the child must not keep mapped. */
  'model.uncache': { request: z.strictObject({ inodes: z.array(Count) }), output: Nothing },
  /**
   * Empties caches, and lets go of up to so many idle models, the one used longest ago first. `freedBytes` went back to
   * the device; null where there is no device but the CPU.
   */
  'memory.trim': {
    request: z.strictObject({ idleModels: Count }),
    output: z.strictObject({ freedBytes: Count.nullable(), models: z.array(z.string()) }),
  },
} as const
type Verb = keyof typeof verbs

/** Operations with a part in Python, by the name that both sides give them. */
export type PythonStep = {
  [Name in keyof typeof operations]: (typeof operations)[Name] extends { python: PythonPart } ? Name : never
}[keyof typeof operations]
const pythonParts = Object.fromEntries(
  Object.entries(operations).flatMap(([name, operation]) => ('python' in operation ? [[name, operation.python as PythonPart]] : [])),
)

/** Whether a step of that name has a part in Python. */
export const isPythonStep = (step: string): step is PythonStep => Object.hasOwn(pythonParts, step)

/**
 * What a step asks. `input` is as its operation declares, with `model` as a ModelRef; it is checked when the request is
 * encoded.
 */
export interface StepRequest {
  sessionId: string
  /** The attempt's own folder: absolute, inside `roots.attempts`. */
  dir: string
  /** Those that there are of the files it may be given. */
  files: Record<string, FileGiven>
  checkpoint: CheckpointGiven | null
  input: Record<string, unknown>
}

const PlacedPreprocessor = preprocessorWith(ModelRef)
/** Fields of operations that the child is told more of. */
const placed = {
  model: ModelRef,
  control: Control.extend({ model: ModelRef, preprocessor: PlacedPreprocessor.optional() }).array().optional(),
  preprocessor: PlacedPreprocessor,
  adapters: AdapterRef.array().optional(),
  embeddings: EmbeddingRef.array().optional(),
  upscaler: z.union([z.enum(upscalers), ModelRef]),
  classifiers: ClassifierRef.array(),
  detector: ClassifierRef,
  restorer: ClassifierRef,
}

function filesOf(files: NonNullable<PythonPart['files']>): z.ZodType<StepRequest['files']> {
  if ('numbered' in files) return z.record(z.string().regex(new RegExp(`^${files.numbered}\\d+$`)), FileGiven)
  return z.strictObject(Object.fromEntries(files.map((name) => [name, FileGiven.optional()]))) as z.ZodType<StepRequest['files']>
}

function stepRequest({ input, files = [], resumes = false }: PythonPart): z.ZodType<StepRequest> {
  return z.strictObject({
    sessionId: z.string(),
    dir: Path,
    files: filesOf(files),
    checkpoint: resumes ? CheckpointGiven.nullable() : z.null(),
    input: input.extend(Object.fromEntries(Object.entries(placed).filter(([name]) => name in input.shape))),
  })
}

const resultOf = (output: z.ZodType, makes: readonly string[] = []) =>
  z.strictObject({
    type: z.literal('result'),
    output,
    /** Every file it makes. */
    files: z.strictObject(Object.fromEntries(makes.map((name) => [name, FileMade]))),
    stats: Stats,
  })

type Requests = { [V in Verb]: (typeof verbs)[V]['request'] } & { [S in PythonStep]: z.ZodType<StepRequest> }
type Outputs = { [V in Verb]: (typeof verbs)[V]['output'] } & { [S in PythonStep]: z.ZodType }

/** What the node may ask for. */
export const requests = {
  ...Object.fromEntries(Object.entries(verbs).map(([verb, { request }]) => [verb, request])),
  ...Object.fromEntries(Object.entries(pythonParts).map(([step, part]) => [step, stepRequest(part)])),
} as Requests

/** The child's `result` frames. */
export const results = {
  ...Object.fromEntries(Object.entries(verbs).map(([verb, { output }]) => [verb, resultOf(output)])),
  ...Object.fromEntries(Object.entries(pythonParts).map(([step, { output = Nothing, makes }]) => [step, resultOf(output, makes)])),
} as Record<Action, ReturnType<typeof resultOf>>

export type Action = keyof Requests
/** Actions that run on the device thread, take their time, and can be paused and cancelled. */
export type WorkAction = Exclude<Action, `worker.${string}`>
export type RequestData<A extends Action> = z.infer<Requests[A]>
export type Output<A extends Action> = z.infer<Outputs[A]>

export const Progress = z.strictObject({
  type: z.literal('progress'),
  /** `import` during the handshake, then `load`, `run`. */
  stage: z.string(),
  call: Count.optional(),
  calls: Count.optional(),
  /** Calls a second, and seconds left, from the recent calls. */
  rate: Seconds.optional(),
  etaS: Seconds.optional(),
})
export type Progress = z.infer<typeof Progress>

const Failure = z.strictObject({
  type: z.literal('error'),
  code: z.string(),
  class: z.enum(errorClasses),
  message: z.string(),
  remedy: z.string(),
  field: z.string().optional(),
  details: z.record(z.string(), z.unknown()).optional(),
})

/** What the child answers, by type; `result` differs by action. */
export const replies = {
  accepted: z.strictObject({ type: z.literal('accepted') }),
  progress: Progress,
  checkpoint: CheckpointMade.extend({ type: z.literal('checkpoint') }),
  preview: PreviewMade.extend({ type: z.literal('preview') }),
  /** A sentence for the session's history. */
  note: z.strictObject({ type: z.literal('note'), text: z.string() }),
  released: z.strictObject({ type: z.literal('released'), checkpoint: CheckpointMade.nullable() }),
  error: Failure,
} as const

export interface Result {
  type: 'result'
  output: unknown
  files: Record<string, FileMade>
  stats: Stats
}
export type ReplyData = { [Type in keyof typeof replies]: z.infer<(typeof replies)[Type]> }[keyof typeof replies] | Result

/** What the child says without being asked. */
export const unasked = {
  /** Its first frame, before its heavy imports. `schema`: SHA-256 of the schema it checks frames with. */
  'worker.hello': z.strictObject({ protocol: z.int(), pid: z.int().min(1), schema: Sha256 }),
  'worker.heartbeat': Heartbeat,
} as const

export type Reply =
  | { kind: 'greeting'; requestId: '0'; action: 'worker.hello'; data: z.infer<(typeof unasked)['worker.hello']> }
  | { kind: 'heartbeat'; requestId: '0'; action: 'worker.heartbeat'; data: Heartbeat }
  | { kind: 'reply'; requestId: string; action: Action; data: ReplyData }

export const Envelope = z.strictObject({
  request_id: z.string().min(1).max(64),
  action: z.string(),
  data: z.record(z.string(), z.unknown()),
})

/** Maps whose keys are names that others chose, not our fields: left as they are, with everything below them. */
export const opaque: ReadonlySet<string> = new Set(['sessions', 'facts', 'details'])

function rename(value: unknown, to: (key: string) => string): unknown {
  if (Array.isArray(value)) return value.map((item) => rename(item, to))
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [to(key), opaque.has(key) ? item : rename(item, to)]))
}
export const snake = (key: string) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
const camel = (key: string) => key.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())

const replyTypes = Object.keys(replies) as (keyof typeof replies)[]
const isAction = (name: string): name is Action => Object.hasOwn(requests, name)

function broken(what: string, problem: unknown): DarkroomError {
  const message = problem instanceof z.ZodError ? z.prettifyError(problem) : String(problem)
  return workerError('protocol', `${what}: ${message}`.slice(0, 2000))
}

/** ASCII only: no code point that anything on the way could split or translate. */
const ascii = (text: string) => text.replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)

/**
 * One request as the line to send, newline included.
 * @throws DarkroomError `worker.protocol` when the data are not what the action takes, or the line is over the cap.
 */
export function encodeRequest<A extends Action>(requestId: string, action: A, data: RequestData<A>): Buffer {
  const parsed = requests[action].safeParse(data)
  if (!parsed.success) throw broken(`cannot ask for ${action}`, parsed.error)
  const line = Buffer.from(ascii(JSON.stringify({ request_id: requestId, action, data: rename(parsed.data, snake) })) + '\n', 'latin1')
  if (line.length > lineCap) throw broken(`cannot ask for ${action}`, `the line has ${line.length} bytes, the cap is ${lineCap}`)
  return line
}

/** What tells which reply it is. */
const Typed = z.looseObject({ type: z.enum(['result', ...replyTypes]) })

/**
 * One line of the child, without its newline.
 * @throws DarkroomError `worker.protocol` when it is no frame of this protocol.
 */
export function decodeReply(line: Buffer): Reply {
  let raw: unknown
  try {
    raw = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(line))
  } catch (error) {
    throw broken('a line is not JSON', `${String(error)}: ${JSON.stringify(line.toString('latin1', 0, 200))}`)
  }
  const envelope = Envelope.safeParse(raw)
  if (!envelope.success) throw broken('a line is no frame', envelope.error)
  const { request_id: requestId, action } = envelope.data
  const data = rename(envelope.data.data, camel)
  const checked = <T>(schema: z.ZodType<T>, value: unknown): T => {
    const parsed = schema.safeParse(value)
    if (!parsed.success) throw broken(`a frame of ${action} is malformed`, parsed.error)
    return parsed.data
  }
  if (requestId === '0') {
    if (action === 'worker.hello') return { kind: 'greeting', requestId, action, data: checked(unasked[action], data) }
    if (action === 'worker.heartbeat') return { kind: 'heartbeat', requestId, action, data: checked(unasked[action], data) }
  }
  if (requestId === '0' || !isAction(action)) throw broken('a frame has an unknown action', JSON.stringify(action))
  const { type } = checked(Typed, data)
  const reply: ReplyData = type === 'result' ? checked<Result>(results[action], data) : checked<ReplyData>(replies[type], data)
  return { kind: 'reply', requestId, action, data: reply }
}
