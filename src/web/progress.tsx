/** How far a session is. */
import type { Session } from '../client/types.ts'
import { inTime } from './words.ts'

/** Stage, call, rate and time left in one line. */
export function progressWords({ status, waiting, progress }: Session): string {
  if (status === 'queued' || (waiting !== null && status === 'running')) return waiting ?? 'waits for its turn'
  if (status === 'pausing') return 'finishes the call it is in'
  if (!progress) return status === 'paused' ? 'rests' : 'begins'
  const { image, images, call, calls, rate, etaS, stage } = progress
  const parts = [
    images !== undefined && images > 1 && `image ${image} of ${images}`,
    call !== undefined && calls !== undefined ? `step ${call} of ${calls}` : stage,
    status === 'running' && rate !== undefined && `${rate >= 10 ? Math.round(rate) : rate.toFixed(1)}/s`,
    status === 'running' && etaS !== undefined && `${inTime(etaS)} left`,
  ]
  return parts.filter(Boolean).join(' · ')
}

export function ProgressBar({ session, label }: { session: Session; label: string }) {
  const { progress, status } = session
  if (!progress || session.endedAt !== null) return null
  return <progress class={status} max={1} value={progress.fraction} aria-label={label} />
}
