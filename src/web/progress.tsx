/** How far a session is. */
import type { Session } from '../client/types.ts'
import { inBytes, inTime, listed } from './words.ts'

/** Stages in which a model is read whole: they count MiB. */
const wholeReads: ReadonlySet<string> = new Set(['hash', 'validate', 'cache', 'load'])

/** Stage, call, rate and time left in one line. */
export function progressWords({ status, waiting, progress }: Session): string {
  if (status === 'queued' || (waiting !== null && status === 'running')) return waiting ?? 'waits for its turn'
  if (status === 'pausing') return 'finishes the call it is in'
  if (!progress) return status === 'paused' ? 'rests' : 'begins'
  const { image, images, call, calls, rate, etaS, stage } = progress
  return listed(
    images !== undefined && images > 1 && `image ${image} of ${images}`,
    call !== undefined && calls !== undefined ? counted(stage, call, calls) : stage,
    status === 'running' && rate !== undefined && `${rate >= 10 ? Math.round(rate) : rate.toFixed(1)}/s`,
    status === 'running' && etaS !== undefined && `${inTime(etaS)} left`,
  )
}

const counted = (stage: string, call: number, calls: number): string =>
  wholeReads.has(stage) ? `${stage}: ${inBytes(call * 2 ** 20)} of ${inBytes(calls * 2 ** 20)}` : `step ${call} of ${calls}`

export function ProgressBar({ session, label }: { session: Session; label: string }) {
  const { progress, status } = session
  if (!progress || session.endedAt !== null) return null
  return <progress class={status} max={1} value={progress.fraction} aria-label={label} />
}
