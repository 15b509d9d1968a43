/**
 * One error shape for HTTP, logs, Redis and Python. A code is `family.reason`; a family is a domain or a part of the
 * product, such as `session` or `redis`. The class belongs to the code, never to the throw, and decides whether the
 * engine tries again.
 *
 * | class       | what the engine does |
 * | ----------- | -------------------- |
 * | `transient` | again after 1 s · 2^k ± 20 %, at most `attempts` times |
 * | `resource`  | again soon, or on another device; not counted as a retry |
 * | `permanent` | the step has failed |
 * | `cancelled` | a client asked for it; never logged as an error |
 */
import type { z } from 'zod'

export const errorClasses = ['transient', 'resource', 'permanent', 'cancelled'] as const
export type ErrorClass = (typeof errorClasses)[number]

export interface ErrorSpec {
  class: ErrorClass
  /** The reader's next action, one sentence. */
  remedy: string
}

/** An error as it travels: in history entries, frames, problem documents. */
export interface WireError {
  code: string
  class: ErrorClass
  message: string
  remedy: string
  field?: string
  details?: Record<string, unknown>
}

const catalogue = new Map<string, ErrorSpec>()

/** Fields of an error besides its code and message; `remedy` replaces that of the catalogue. */
export interface ErrorDetails {
  field?: string
  details?: Record<string, unknown>
  remedy?: string
  cause?: unknown
}

/**
 * Makes an error of one family: `throw memoryError('invalid', 'bytes must be positive', { field: 'bytes' })` is
 * `memory.invalid`.
 */
export type ErrorFactory<Reason extends string> = (reason: Reason, message: string, more?: ErrorDetails) => DarkroomError

/**
 * Adds a family of codes to the catalogue and returns its factory.
 * @throws Error when a code is defined twice
 */
export function defineErrors<const Specs extends Record<string, ErrorSpec>>(
  family: string,
  specs: Specs,
): ErrorFactory<keyof Specs & string> {
  for (const [reason, spec] of Object.entries(specs)) {
    const code = `${family}.${reason}`
    if (catalogue.has(code)) throw new Error(`error code ${code} is defined twice`)
    catalogue.set(code, spec)
  }
  return (reason, message, more) => new DarkroomError(`${family}.${reason}`, message, more)
}

/** Every code with its class and remedy, for the documentation and the test that compares it with Python's. */
export const errorCatalogue: ReadonlyMap<string, ErrorSpec> = catalogue

export class DarkroomError extends Error {
  readonly code: string
  readonly class: ErrorClass
  readonly remedy: string
  readonly field: string | undefined
  readonly details: Record<string, unknown> | undefined

  /**
   * `code` must be in the catalogue; `message` says what happened, and to which id. A family's factory is the way to
   * make one.
   */
  constructor(code: string, message: string, more: ErrorDetails = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause })
    const spec = catalogue.get(code)
    if (!spec) throw new Error(`error code ${code} is not in the catalogue`, { cause: this })
    this.name = 'DarkroomError'
    this.code = code
    this.class = spec.class
    this.remedy = more.remedy ?? spec.remedy
    this.field = more.field
    this.details = more.details
  }

  toWire(): WireError {
    const { code, class: errorClass, message, remedy, field, details } = this
    return { code, class: errorClass, message, remedy, ...(field && { field }), ...(details && { details }) }
  }

  /** An error from the wire keeps its code; a code that is not in the catalogue becomes `worker.failed`. */
  static fromWire(wire: WireError): DarkroomError {
    const known = catalogue.has(wire.code)
    return new DarkroomError(known ? wire.code : 'worker.failed', wire.message, {
      remedy: wire.remedy,
      ...(wire.field && { field: wire.field }),
      details: known ? (wire.details ?? {}) : { ...wire.details, code: wire.code },
    })
  }
}

export const diskError = defineErrors('disk', {
  full: {
    class: 'resource',
    remedy: 'Free space on the disk that is named above, or enlarge it; sessions that were accepted go on by themselves then.',
  },
})

/**
 * What a file system throws, as `disk.full` when it has no room, or the user's share of it is used up; any other value
 * stays as it is. `where`: the file or folder, for an error that names none.
 */
export function asDiskError(thrown: unknown, where?: string): unknown {
  const { code, message, path = where } = (thrown ?? {}) as NodeJS.ErrnoException
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return thrown
  return diskError('full', path === undefined || message.includes(path) ? message : `${path}: ${message}`, { cause: thrown })
}

/** The thrown value as a DarkroomError, with the code `fallback` when it is neither one already nor a full disk's. */
export function ensureError(value: unknown, fallback: string): DarkroomError {
  const thrown = asDiskError(value)
  if (thrown instanceof DarkroomError) return thrown
  return new DarkroomError(fallback, thrown instanceof Error ? thrown.message : String(thrown), { cause: thrown })
}

export const sessionError = defineErrors('session', {
  unknown: { class: 'permanent', remedy: 'Check the id; a deleted session cannot be restored.' },
  ended: { class: 'permanent', remedy: 'The session has ended and never changes again; `retry` makes a new one from it.' },
  not_ended: { class: 'permanent', remedy: 'Cancel the session first, or wait for its end.' },
  not_waiting: {
    class: 'permanent',
    remedy: 'Only a session that waits for its turn on a device has a place there; look at GET /v1/queue.',
  },
  other_key: { class: 'permanent', remedy: 'Order among API keys follows from their priorities and weights: change the priority instead.' },
  not_retryable: { class: 'permanent', remedy: 'Only a failed or cancelled session can be retried; submit a new one.' },
  items_failed: {
    class: 'permanent',
    remedy:
      'Read the errors of its items (`GET /v1/sessions/{id}/items?status=failed`); `retry` makes a new session of those that have not succeeded.',
  },
  no_items: { class: 'permanent', remedy: 'Ask for the items of a session that works some off, as those of `batch` do.' },
  no_results: { class: 'permanent', remedy: 'Wait until the first picture of the session is there; its progress tells.' },
  not_forkable: { class: 'permanent', remedy: 'Choose an entry that `GET /v1/sessions/{id}/states` lists, before the end.' },
  checkpoint_gone: { class: 'permanent', remedy: 'Choose a call that `GET /v1/sessions/{id}/states` lists, or leave it out.' },
  child_cancelled: { class: 'cancelled', remedy: 'This child session was cancelled; the workflow of its parent decides what follows.' },
  signal_unknown: { class: 'permanent', remedy: 'Send a signal that the workflow accepts; the message names them.' },
  no_preview: {
    class: 'permanent',
    remedy: 'Follow the events of the session: its progress says when there is a `preview`, and its output names the pictures.',
  },
  idempotency_mismatch: { class: 'permanent', remedy: 'Send the same body again, or use another Idempotency-Key.' },
  deadline_exceeded: { class: 'permanent', remedy: 'Submit it again with a later deadline, or add workers.' },
  too_long: { class: 'permanent', remedy: 'Split the work over several sessions; one records at most 10,000 events.' },
  cancelled: { class: 'cancelled', remedy: 'Submit it again if it was not meant to end.' },
})

export const unknownSession = (id: string): DarkroomError =>
  sessionError('unknown', `there is no session ${JSON.stringify(id.slice(0, 64))}`)

export const workflowError = defineErrors('workflow', {
  unknown: { class: 'permanent', remedy: 'Choose a workflow that GET /v1/workflows lists.' },
  forbidden: { class: 'permanent', remedy: 'Use a key that has the scope `operate`.' },
  broken: { class: 'permanent', remedy: 'The workflow itself is faulty; its author must fix it and raise its version.' },
  too_large: { class: 'permanent', remedy: 'Keep bytes as artifacts, and in the context their SHA-256 alone.' },
  unloadable: {
    class: 'permanent',
    remedy: 'Correct what the message names, then have the folder read again (`darkroom workflows reload`).',
  },
  changed: {
    class: 'permanent',
    remedy: 'Give the changed workflow the next version, in a module of its own, and put back the one that sessions have used.',
  },
  no_folder: { class: 'permanent', remedy: 'Set DARKROOM_WORKFLOWS to the folder of your modules, and start the farm again.' },
})

export const approvalError = defineErrors('approval', {
  unknown: { class: 'permanent', remedy: 'Check the URL; whoever may control the session can make a new one.' },
  expired: { class: 'permanent', remedy: 'Ask whoever sent the URL; the session has gone on without the answer, or they make a new one.' },
  used: { class: 'permanent', remedy: 'Nothing is left to do; whoever may control the session can make another.' },
  late: { class: 'permanent', remedy: 'Look at the session: it has gone on, or does not wait yet.' },
  too_many: { class: 'permanent', remedy: 'Use one that was made before; a session has at most 32.' },
})

export const workerError = defineErrors('worker', {
  failed: { class: 'permanent', remedy: 'Read the worker log around this time; then retry the session.' },
  poisoned: {
    class: 'permanent',
    remedy: 'Read the step.recovered events of this session and the logs of the workers they name; then retry it.',
  },
  child_died: {
    class: 'transient',
    remedy: 'The step is tried again from its last checkpoint; read the worker log if it happens again.',
  },
  child_hung: {
    class: 'transient',
    remedy: 'The step is tried again from its last checkpoint; read the worker log if it happens again.',
  },
  overran: {
    class: 'transient',
    remedy: 'The Python child was replaced because a step did not stop in time; this one is tried again from its last checkpoint.',
  },
  protocol: {
    class: 'transient',
    remedy: 'The Python child broke the protocol and is replaced; check that both sides have one version.',
  },
  busy: { class: 'transient', remedy: 'Try again in a moment.' },
  folder_gone: {
    class: 'transient',
    remedy: 'The step is tried again from its last checkpoint; keep whatever cleans temporary folders away from those of workers.',
  },
  timeout: { class: 'transient', remedy: 'The step exceeded its time limit; submit a smaller request.' },
  start_failed: { class: 'permanent', remedy: 'Run `darkroom doctor`; it names what is missing.' },
  action_unknown: { class: 'permanent', remedy: 'Node and Python are of different versions; install one version of both.' },
  path_refused: {
    class: 'permanent',
    remedy: 'Keep models in a model folder and attempt files in the attempt folder; no link may lead out.',
  },
})

export const artifactError = defineErrors('artifact', {
  missing: { class: 'resource', remedy: 'The bytes are gone; the step that made them runs again.' },
  corrupt: { class: 'resource', remedy: 'The bytes do not match their name; the step that made them runs again.' },
  index_lost: { class: 'permanent', remedy: 'Start the Redis with the data of the farm that these artifacts belong to.' },
  not_shared: { class: 'permanent', remedy: 'Give every API and worker the same artifact folder (DARKROOM_DATA).' },
  unknown: {
    class: 'permanent',
    remedy: 'Check the id: 64 hex digits, of an artifact that one of your sessions names, or that you uploaded within the hour.',
  },
  format: { class: 'permanent', remedy: 'Send a PNG, JPEG, WebP or AVIF file.' },
  animated: { class: 'permanent', remedy: 'Send one frame of it, as a picture of its own.' },
  too_many_pixels: { class: 'permanent', remedy: 'Make the picture smaller, and send it again.' },
  broken: { class: 'permanent', remedy: 'Send the whole file, as it opens elsewhere; or save it anew.' },
  busy: { class: 'transient', remedy: 'Send it again in a moment.' },
  url_refused: {
    class: 'permanent',
    remedy: 'Send the file itself, or a URL on a host of DARKROOM_PICTURE_HOSTS whose address is public, or in DARKROOM_PICTURE_NETS.',
  },
  url_failed: { class: 'permanent', remedy: 'Check that the URL itself answers with the picture, or send the file.' },
  no_thumbnail: { class: 'permanent', remedy: 'Fetch the picture itself, without `size`.' },
  untold: { class: 'permanent', remedy: 'Say the request yourself; a picture that was saved anew has often lost its texts.' },
  range: { class: 'permanent', remedy: 'Ask for bytes that there are: `Content-Range` says how many.' },
})

export const redisError = defineErrors('redis', {
  unavailable: {
    class: 'transient',
    remedy: 'Send the same request again with the same Idempotency-Key; the answer is the same session, or a new one.',
  },
  full: { class: 'resource', remedy: 'Delete ended sessions or give Redis more maxmemory; accepted sessions continue.' },
  unsafe: {
    class: 'permanent',
    remedy: 'Set noeviction and appendonly yes, for strict also appendfsync always; a remote Redis needs a password and TLS.',
  },
})

export const keyError = defineErrors('key', {
  unknown: { class: 'permanent', remedy: 'Use an id that `darkroom keys list` or GET /v1/keys shows.' },
  left: { class: 'permanent', remedy: 'Revoke them first (`darkroom keys revoke`): with a key, every request needs one.' },
})

export const apiError = defineErrors('api', {
  invalid: { class: 'permanent', remedy: 'Correct the fields that `problems` names, then send it again.' },
  malformed: { class: 'permanent', remedy: 'Send well-formed HTTP/1.1, and as body one well-formed JSON document in UTF-8.' },
  too_large: { class: 'permanent', remedy: 'Send at most 1 MiB.' },
  timed_out: { class: 'transient', remedy: 'Send the whole request at once, and again if the connection was slow.' },
  headers_too_large: { class: 'permanent', remedy: 'Send at most 16 KiB of headers, the target included.' },
  expectation_failed: { class: 'permanent', remedy: 'Send no `Expect` but `100-continue`.' },
  unsupported_media_type: { class: 'permanent', remedy: 'Send the body as `Content-Type: application/json`, not compressed.' },
  host_refused: {
    class: 'permanent',
    remedy: 'Call the API by localhost or its bound address, or add the name to DARKROOM_ALLOWED_HOSTS.',
  },
  origin_refused: {
    class: 'permanent',
    remedy: 'Only pages of this server may call it; others need to be in DARKROOM_ALLOWED_ORIGINS.',
  },
  forwarded_refused: {
    class: 'permanent',
    remedy: 'Requests through a proxy need an API key: `darkroom keys add`; docs/proxy.md shows how to set one up.',
  },
  unauthorized: { class: 'permanent', remedy: 'Send `Authorization: Bearer KEY` with a key from `darkroom keys add`.' },
  forbidden: { class: 'permanent', remedy: 'Use a key that has the scope named above.' },
  not_found: { class: 'permanent', remedy: 'GET /openapi.json lists all paths.' },
  upgrade_required: { class: 'permanent', remedy: 'Open it as a WebSocket, version 13 (RFC 6455).' },
  method_not_allowed: { class: 'permanent', remedy: 'Use one of the methods in the `Allow` header.' },
  board_read_only: { class: 'permanent', remedy: 'Start the API with DARKROOM_BOARD_WRITE=1 to change queues by hand.' },
  board_refused: { class: 'permanent', remedy: 'Read the message of Bull Board; the queue may have changed meanwhile.' },
  key_required: { class: 'permanent', remedy: 'Add a key first (`darkroom keys add`), or bind DARKROOM_HOST to 127.0.0.1.' },
  not_ready: { class: 'transient', remedy: 'Ask with an API key for the reasons; start a worker, free the disk, or see to Redis.' },
  closing: { class: 'transient', remedy: 'This process is shutting down; send the request again in a moment.' },
  port_taken: {
    class: 'transient',
    remedy: 'Stop the program that listens there, or choose another port with DARKROOM_PORT (0 takes a free one).',
  },
  failed: { class: 'permanent', remedy: 'Look for the request id in the log of the API.' },
})

/** An invalid field of a request; its path is joined by dots. */
export interface FieldProblem {
  field: string
  message: string
}

/**
 * zod's issues, each with its field.
 * @param whole the name of the checked value, used for an issue without a path
 * @param prefix put before every path
 */
export function fieldProblems(issues: readonly z.core.$ZodIssue[], whole: string, prefix = ''): FieldProblem[] {
  return issues.flatMap((issue) => {
    const path = issue.path.map(String)
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => ({ field: prefix + [...path, key].join('.'), message: 'there is no such field' }))
    }
    return [{ field: path.length > 0 ? prefix + path.join('.') : whole, message: issue.message }]
  })
}

/** Most fields that a refusal lists, and most characters of a field's name and of what is wrong with it. */
const maxListed = 20
const maxFieldName = 100
const maxFieldWords = 300

/** A text of at most so many characters, with a mark where more of it was. */
export const cut = (text: string, most: number): string => (text.length > most ? `${text.slice(0, most - 1)}…` : text)

/** `api.invalid` with the invalid fields: the first twenty, and how many more there are; `field` is the first. */
export function invalidFields(all: readonly FieldProblem[]): DarkroomError {
  const problems = all
    .slice(0, maxListed)
    .map(({ field, message }) => ({ field: cut(field, maxFieldName), message: cut(message, maxFieldWords) }))
  const more = all.length > problems.length ? [`and ${all.length - problems.length} more`] : []
  const message = [...problems.map((problem) => `${problem.field}: ${problem.message}`), ...more].join('; ')
  const [first] = problems
  return apiError('invalid', message, { details: { problems }, ...(first && { field: first.field }) })
}

export const configError = defineErrors('config', {
  invalid: { class: 'permanent', remedy: 'Correct the settings named above.' },
})
