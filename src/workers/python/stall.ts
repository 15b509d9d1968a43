/** When a process of the Python child counts as hung, and when a call counts as one that does not stop. */
import type { PendingCall } from './call.ts'

/** Milliseconds. */
export interface Stall {
  /** Without any frame for this long the process is suspected, for twice as long it is killed. */
  heartbeatMs: number
  /**
   * The device thread may take this long, or 20 of the request's recent calls, for one call; ten times this until one
   * has been measured.
   */
  stepMs: number
  /** The same while a model loads. */
  loadMs: number
  /** From spawn, of a spare from when it is taken into use, to the end of the handshake. */
  startMs: number
  /** How long a request may go on once it was paused or cancelled, beyond what one of its calls usually takes. */
  overrunMs: number
  /** From SIGTERM to SIGKILL. */
  termMs: number
}

export const defaultStall: Stall = {
  heartbeatMs: 10_000,
  stepMs: 30_000,
  loadMs: 600_000,
  startMs: 120_000,
  overrunMs: 10_000,
  termMs: 5_000,
}

/** While it loads a model, or compiles blocks of its network. */
const loads = (action: string, call: PendingCall | undefined): boolean =>
  action === 'model.ensure' || call?.stage === 'load' || call?.stage === 'compile'

/** How long one call may take, by the request's own pace: a larger picture or a decode has another one. */
export function callLimit({ stepMs, loadMs }: Stall, action: string, call: PendingCall | undefined): number {
  if (loads(action, call)) return Math.max(stepMs, loadMs)
  return call?.paceMs === undefined ? 10 * stepMs : Math.max(stepMs, 20 * call.paceMs)
}

/**
 * Whether a request goes on although it was asked to stop long ago. While its model loads or is compiled it may: that
 * serves the next one as well.
 */
export function overruns({ overrunMs }: Stall, call: PendingCall, now: number): boolean {
  const { action, paceMs = 0, stoppingSince } = call
  return stoppingSince !== undefined && !loads(action, call) && now - stoppingSince > overrunMs + paceMs
}
