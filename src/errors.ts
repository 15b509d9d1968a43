/**
 * One error shape for HTTP, logs, Redis and Python. A code is `domain.reason` or `session|worker|api|redis|artifact|key.reason`;
 * its class belongs to the code, never to the throw, and decides whether the engine tries again.
 *
 * | class       | what the engine does |
 * | ----------- | -------------------- |
 * | `transient` | again after 1 s · 2^k ± 20 %, at most `attempts` times |
 * | `resource`  | next rung or another device, not counted as a retry |
 * | `permanent` | the step has failed |
 * | `cancelled` | somebody asked for it; never logged as an error |
 */
export type ErrorClass = 'transient' | 'resource' | 'permanent' | 'cancelled'

export interface ErrorSpec {
  class: ErrorClass
  /** What the reader can do about it, one sentence. */
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

/** Adds codes to the catalogue, once each. Throws when a code is defined twice with another meaning. */
export function defineErrors<const T extends Record<string, ErrorSpec>>(specs: T): T {
  for (const [code, spec] of Object.entries(specs)) {
    if (catalogue.has(code)) throw new Error(`error code ${code} is defined twice`)
    catalogue.set(code, spec)
  }
  return specs
}

/** Every code with its class and remedy, for the documentation and the test that compares it with Python's. */
export const errorCatalogue: ReadonlyMap<string, ErrorSpec> = catalogue

export class DarkroomError extends Error {
  readonly code: string
  readonly class: ErrorClass
  readonly remedy: string
  readonly field: string | undefined
  readonly details: Record<string, unknown> | undefined

  /** `code` must be in the catalogue; `message` says what happened, and to which id. */
  constructor(
    code: string,
    message: string,
    more: { field?: string; details?: Record<string, unknown>; remedy?: string; cause?: unknown } = {},
  ) {
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

  /** An error that came over a wire keeps its code; a code nobody here knows becomes `worker.failed`. */
  static fromWire(wire: WireError): DarkroomError {
    const known = catalogue.has(wire.code)
    return new DarkroomError(known ? wire.code : 'worker.failed', wire.message, {
      remedy: wire.remedy,
      ...(wire.field && { field: wire.field }),
      details: known ? (wire.details ?? {}) : { ...wire.details, code: wire.code },
    })
  }
}

/** Whatever was thrown, as a DarkroomError under `fallback` when it is not one already. */
export function ensureError(thrown: unknown, fallback: string): DarkroomError {
  if (thrown instanceof DarkroomError) return thrown
  return new DarkroomError(fallback, thrown instanceof Error ? thrown.message : String(thrown), { cause: thrown })
}

defineErrors({
  'session.unknown': { class: 'permanent', remedy: 'Check the id; a deleted session is gone for good.' },
  'session.ended': { class: 'permanent', remedy: 'The session has ended and never changes again; `retry` makes a new one from it.' },
  'session.not_ended': { class: 'permanent', remedy: 'Cancel the session first, or wait for its end.' },
  'session.not_retryable': { class: 'permanent', remedy: 'Only a failed or cancelled session can be retried; submit a new one.' },
  'session.child_cancelled': { class: 'cancelled', remedy: 'Somebody cancelled this child session; its workflow decides what follows.' },
  'session.signal_unknown': { class: 'permanent', remedy: 'Send a signal that the workflow takes; the message names them.' },
  'session.idempotency_mismatch': { class: 'permanent', remedy: 'Send the same body again, or use another Idempotency-Key.' },
  'session.deadline_exceeded': { class: 'permanent', remedy: 'Give it a later deadline, or add workers.' },
  'session.too_long': { class: 'permanent', remedy: 'Split the work over several sessions; one records at most 10,000 events.' },
  'workflow.unknown': { class: 'permanent', remedy: 'GET /v1/workflows lists the workflows there are.' },
  'workflow.forbidden': { class: 'permanent', remedy: 'Use a key that has the scope `operate`.' },
  'workflow.broken': { class: 'permanent', remedy: 'The workflow itself threw; its author has to mend it and give it a new version.' },
  'worker.failed': { class: 'permanent', remedy: 'Read the worker log around this time; then retry the session.' },
  'worker.poisoned': { class: 'permanent', remedy: 'This session ended the workers that ran it; read the evidence before you retry it.' },
  'worker.child_died': {
    class: 'transient',
    remedy: 'The step is tried again from its last checkpoint; read the worker log if it comes back.',
  },
  'worker.child_hung': {
    class: 'transient',
    remedy: 'The step is tried again from its last checkpoint; read the worker log if it comes back.',
  },
  'worker.protocol': {
    class: 'transient',
    remedy: 'The Python child broke the protocol and is replaced; check that both sides have one version.',
  },
  'worker.busy': { class: 'transient', remedy: 'Try again in a moment.' },
  'worker.timeout': { class: 'transient', remedy: 'The step took longer than its limit; raise it or choose smaller work.' },
  'worker.start_failed': { class: 'permanent', remedy: 'Run `darkroom doctor`; it names what is missing.' },
  'device.taken': { class: 'permanent', remedy: 'Another live worker owns this device; choose another device or stop that worker.' },
  'device.lost': { class: 'transient', remedy: 'The device is gone; its steps move to another worker.' },
  'memory.exhausted': { class: 'resource', remedy: 'Draw a smaller picture, or free memory on the device.' },
  'memory.reserved': { class: 'resource', remedy: 'Others hold or wait for it; try again in a moment, or use another device.' },
  'artifact.missing': { class: 'resource', remedy: 'The bytes are gone; the step that made them runs again.' },
  'artifact.corrupt': { class: 'resource', remedy: 'The bytes do not match their name; the step that made them runs again.' },
  'artifact.not_shared': { class: 'permanent', remedy: 'Give every API and worker the same artifact folder (DARKROOM_DATA).' },
  'artifact.unknown': { class: 'permanent', remedy: 'Check the id: 64 hex digits, named by a session you can see.' },
  'redis.unavailable': {
    class: 'transient',
    remedy: 'Send the same request again with the same Idempotency-Key: it tells which way it went.',
  },
  'redis.full': { class: 'resource', remedy: 'Delete ended sessions or give Redis more maxmemory; what was accepted goes on.' },
  'redis.unsafe': {
    class: 'permanent',
    remedy: 'Use noeviction, appendonly yes, for strict appendfsync always; a Redis elsewhere needs a password and TLS.',
  },
  'key.unknown': { class: 'permanent', remedy: '`darkroom keys list` shows the ids there are.' },
  'api.invalid': { class: 'permanent', remedy: 'Correct the fields that `problems` names, then send it again.' },
  'config.invalid': { class: 'permanent', remedy: 'Correct the settings named above.' },
})
