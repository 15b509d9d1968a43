/**
 * What a worker node and its Python child say to each other: one JSON object a line, `{request_id, action, data}`, at most 1 MiB.
 * Fields are snake_case on the wire and camelCase here; this file is the only place that turns one into the other. What users name
 * (`OPAQUE` below) keeps its names. `test/fixtures/protocol/` holds one message of every kind, read by both sides' tests.
 *
 * Every request ends in exactly one terminal frame: `result`, `released` (after a pause) or `error`. Frames nobody asked for (the greeting
 * and the heartbeat) carry the request id `0`.
 */
import { z } from 'zod'
import { DarkroomError, workerError } from '../../errors.ts'

export const protocolVersion = 1
/** Longest line either side may send, newline included, in bytes. */
export const lineCap = 1_048_576

const whole = z.int().min(0)
const seconds = z.number().min(0)
const Sha256 = z.string().regex(/^[0-9a-f]{64}$/)
const Path = z.string().min(1)

export const ModelRef = z.strictObject({ id: z.string(), path: Path, bodyHash: Sha256, family: z.enum(['sd1']) })
export type ModelRef = z.infer<typeof ModelRef>

/** A file the node hands to the child. `path` is absolute and inside `roots.attempts`. */
export const FileGiven = z.strictObject({ path: Path, sha256: Sha256 })
export type FileGiven = z.infer<typeof FileGiven>

/** A complete file the child made, inside the attempt's folder. */
export const FileMade = z.strictObject({ path: Path, sha256: Sha256, bytes: whole })
export type FileMade = z.infer<typeof FileMade>

/** `call` is the number of denoise calls that are done. */
export const CheckpointGiven = z.strictObject({ path: Path, sha256: Sha256, call: whole })
export type CheckpointGiven = z.infer<typeof CheckpointGiven>
export const CheckpointMade = z.strictObject({ path: Path, sha256: Sha256, bytes: whole, call: whole })
export type CheckpointMade = z.infer<typeof CheckpointMade>

/** What the node tells the child about itself; `protocol` is added by the sender. */
export const Hello = z.strictObject({
  workerId: z.string(),
  /** `cpu`, `cuda`, `cuda:0`, … */
  device: z.string(),
  threads: z.int().min(1),
  roots: z.strictObject({ models: z.array(Path), attempts: Path }),
  checkpoint: z.strictObject({ intervalS: seconds, calls: z.int().min(1).nullable() }),
})
export type Hello = z.infer<typeof Hello>

/** What the child is, once its imports are done: everything that decides the bits of an image, and what it can run. */
export const Ready = z.strictObject({
  protocol: z.literal(protocolVersion),
  pid: z.int(),
  build: z.strictObject({
    python: z.string(),
    torch: z.string(),
    diffusers: z.string(),
    transformers: z.string(),
    tokenizers: z.string(),
    safetensors: z.string(),
    numerics: z.int(),
  }),
  hardware: z.strictObject({
    kind: z.string(),
    name: z.string(),
    uuid: z.string().nullable(),
    index: whole,
    capability: z.string().nullable(),
    driver: z.string().nullable(),
    totalBytes: whole.nullable(),
    arch: z.string(),
    vector: z.string(),
    math: z.string(),
    threads: z.int().min(1),
  }),
  settings: z.strictObject({
    dtype: z.string(),
    attention: z.string(),
    deterministic: z.boolean(),
    tf32: z.boolean(),
    tiling: z.boolean(),
    offload: z.string(),
  }),
})
export type Ready = z.infer<typeof Ready>

/** The child's own figures, every 2 s and on request. */
export const Vitals = z.strictObject({
  uptimeS: seconds,
  rssBytes: whole,
  /** Bytes its allocator holds on the device; null where there is no device but the CPU. */
  deviceBytes: whole.nullable(),
  /** The part of them that is in tensors; null likewise. */
  allocatedBytes: whole.nullable(),
  /** What the device thread does now; `advancedS` is how long ago it last got on with it. */
  busy: z.strictObject({ requestId: z.string(), action: z.string(), call: whole.nullable(), advancedS: seconds }).nullable(),
  /** Session id → bytes of tensors held for it. */
  sessions: z.record(z.string(), whole),
  /** The resident models, the one used longest ago first. Idle: no request uses it or waits for it. */
  models: z.array(z.strictObject({ id: z.string(), bytes: whole, isIdle: z.boolean(), usedS: seconds })),
})
export type Vitals = z.infer<typeof Vitals>

const Nothing = z.strictObject({})
const Target = z.strictObject({ target: z.string() })
const Place = {
  sessionId: z.string(),
  /** The attempt's own folder: absolute, inside `roots.attempts`. */
  dir: Path,
  files: z.record(z.string(), FileGiven),
  checkpoint: CheckpointGiven.nullable(),
}
const Size = { width: z.int().min(8).multipleOf(8), height: z.int().min(8).multipleOf(8) }
const Prompt = { model: ModelRef, prompt: z.string(), negativePrompt: z.string() }

/** What the node may ask for. */
export const requests = {
  'worker.hello': Hello.extend({ protocol: z.strictObject({ min: z.int(), max: z.int() }) }),
  'worker.ping': Nothing,
  'worker.pause': Target,
  'worker.cancel': Target,
  'worker.shutdown': Nothing,
  'model.ensure': z.strictObject({ model: ModelRef }),
  /** Empties caches, and lets go of up to so many idle models, the one used longest ago first. */
  'memory.trim': z.strictObject({ idleModels: whole }),
  'inference.encode': z.strictObject({ ...Place, input: z.strictObject(Prompt) }),
  'inference.denoise': z.strictObject({
    ...Place,
    input: z.strictObject({
      ...Prompt,
      ...Size,
      steps: z.int().min(1),
      guidance: z.number(),
      seed: whole,
      sampler: z.string(),
    }),
  }),
  'inference.decode': z.strictObject({ ...Place, input: z.strictObject({ model: ModelRef, ...Size }) }),
} as const

/** What the child answers to it, in `output` of the `result` frame. */
export const outputs = {
  'worker.hello': Ready,
  'worker.ping': Vitals,
  'worker.pause': Nothing,
  'worker.cancel': Nothing,
  'worker.shutdown': Nothing,
  /** `resident`: it already was; `seconds` is the time the load took. */
  'model.ensure': z.strictObject({ id: z.string(), resident: z.boolean(), bytes: whole, seconds }),
  /** Bytes that went back to the device; null where there is no device but the CPU. */
  'memory.trim': z.strictObject({ freedBytes: whole.nullable(), models: z.array(z.string()) }),
  'inference.encode': Nothing,
  'inference.denoise': Nothing,
  'inference.decode': z.strictObject(Size),
} as const

export type Action = keyof typeof requests
/** Actions that run on the device thread, take their time, and can be paused and cancelled. */
export type WorkAction = 'model.ensure' | 'memory.trim' | `inference.${'encode' | 'denoise' | 'decode'}`
export type RequestData<A extends Action> = z.infer<(typeof requests)[A]>
export type Output<A extends Action> = z.infer<(typeof outputs)[A]>

export const Progress = z.strictObject({
  type: z.literal('progress'),
  /** `import` during the handshake, then `load`, `run`. */
  stage: z.string(),
  call: whole.optional(),
  calls: whole.optional(),
  /** Calls a second, and seconds left, from the recent calls. */
  rate: seconds.optional(),
  etaS: seconds.optional(),
})
export type Progress = z.infer<typeof Progress>

const Failure = z.strictObject({
  type: z.literal('error'),
  code: z.string(),
  class: z.enum(['transient', 'resource', 'permanent', 'cancelled']),
  message: z.string(),
  remedy: z.string(),
  field: z.string().optional(),
  details: z.record(z.string(), z.unknown()).optional(),
})

const ReplyData = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('accepted') }),
  Progress,
  CheckpointMade.extend({ type: z.literal('checkpoint') }),
  z.strictObject({
    type: z.literal('result'),
    output: z.unknown(),
    files: z.record(z.string(), FileMade),
    /** How it went, in the child's own words: times, calls, `resumed_from`, `checkpoint_refused`, `remade`. */
    stats: z.record(z.string(), z.unknown()),
  }),
  z.strictObject({ type: z.literal('released'), checkpoint: CheckpointMade.nullable() }),
  Failure,
])
export type ReplyData = z.infer<typeof ReplyData>

/** The child's first frame, before its heavy imports. */
const Greeting = z.strictObject({ protocol: z.int(), pid: z.int() })

export type Reply =
  | { kind: 'greeting'; requestId: '0'; action: 'worker.hello'; data: z.infer<typeof Greeting> }
  | { kind: 'heartbeat'; requestId: '0'; action: 'worker.heartbeat'; data: Vitals }
  | { kind: 'reply'; requestId: string; action: Action; data: ReplyData }

const Envelope = z.strictObject({ request_id: z.string().min(1).max(64), action: z.string(), data: z.record(z.string(), z.unknown()) })

/** Maps whose keys are somebody's names, not our fields: left as they are, with everything below them. */
const OPAQUE: ReadonlySet<string> = new Set(['stats', 'sessions', 'params', 'files', 'details'])

function rename(value: unknown, to: (key: string) => string): unknown {
  if (Array.isArray(value)) return value.map((item) => rename(item, to))
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [to(key), OPAQUE.has(key) ? item : rename(item, to)]))
}
const snake = (key: string) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
const camel = (key: string) => key.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())

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
    if (action === 'worker.hello') return { kind: 'greeting', requestId, action, data: checked(Greeting, data) }
    if (action === 'worker.heartbeat') return { kind: 'heartbeat', requestId, action, data: checked(Vitals, data) }
  }
  if (requestId === '0' || !Object.hasOwn(requests, action)) throw broken('a frame has an unknown action', JSON.stringify(action))
  const known = action as Action
  const reply = checked(ReplyData, data)
  if (reply.type === 'result') reply.output = checked<unknown>(outputs[known], reply.output)
  return { kind: 'reply', requestId, action: known, data: reply }
}
