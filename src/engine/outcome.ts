/** How a session ends, as a commit and a creation write it. */
import { workflowError, type WireError } from '../errors.ts'
import type { Entry } from './session.ts'
import type { Transition } from './transition.ts'

export interface Outcome {
  status: 'succeeded' | 'failed' | 'cancelled'
  /** Output or error, JSON; '' for neither. */
  result: string
  entry: Entry
}

/**
 * How a final state ends the session: XState `done` succeeds, unless the state has the tag `failed`; XState `error`
 * fails. Undefined while the machine is active.
 */
export function outcomeOf({ document, snapshot }: Pick<Transition, 'document' | 'snapshot'>): Outcome | undefined {
  if (document.status === undefined) return undefined
  const failed = document.status === 'error' || snapshot.hasTag('failed')
  if (!failed) {
    const output = document.output ?? {}
    return { status: 'succeeded', result: JSON.stringify(output), entry: { type: 'session.succeeded', output } }
  }
  const told = document.status === 'error' ? document.error : (document.output as { error?: unknown } | undefined)?.error
  return failure(
    isWireError(told) ? told : workflowError('broken', `the workflow failed without saying why: ${JSON.stringify(told)}`).toWire(),
  )
}

export const failure = (error: WireError): Outcome => ({
  status: 'failed',
  result: JSON.stringify(error),
  entry: { type: 'session.failed', error },
})

export const cancelled: Outcome = { status: 'cancelled', result: '', entry: { type: 'session.cancelled' } }

const isWireError = (value: unknown): value is WireError =>
  typeof value === 'object' && value !== null && 'code' in value && 'message' in value
