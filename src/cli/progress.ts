/** Progress in words, as people of this field write it. Pure. */
import type { Progress } from '../engine/session.ts'
import { size } from './bars.ts'

/** `image 2/4  denoise 12/20  9.8 it/s  0:01 left` */
export function describeProgress({ step, stage, call, calls, rate, etaS, image, images, items }: Progress): string {
  if (items) return describeItems(items, etaS)
  // For a step of another kind.
  const isBefore = stage === 'load' || (stage === 'hash' && step !== 'model.hash')
  const verb = isBefore ? `${stage} model` : (step.split('.')[1] ?? step)
  // Steps on memory count bytes, those that read models whole MiB.
  const inMegabytes = (count: number): string => size(count * 2 ** 20)
  const count = step.startsWith('memory.') ? size : wholeReads.has(stage) ? inMegabytes : String
  return [
    images !== undefined && images > 1 ? `image ${image}/${images}` : '',
    call !== undefined && calls !== undefined && calls > 1 ? `${verb} ${count(call)}/${count(calls)}` : verb,
    rate === undefined ? '' : speed(rate),
    etaS === undefined ? '' : `${duration(etaS)} left`,
  ]
    .filter(Boolean)
    .join('  ')
}

/** `120/500 items  16 under way  2 failed  0:42 left` */
function describeItems({ total, running, succeeded, failed, cancelled }: NonNullable<Progress['items']>, etaS: number | undefined): string {
  return [
    `${succeeded + failed + cancelled}/${total} items`,
    running > 0 ? `${running} under way` : '',
    failed > 0 ? `${failed} failed` : '',
    cancelled > 0 ? `${cancelled} cancelled` : '',
    etaS === undefined || running === 0 ? '' : `${duration(etaS)} left`,
  ]
    .filter(Boolean)
    .join('  ')
}

/** Stages in which a model is read whole. */
const wholeReads: ReadonlySet<string> = new Set(['hash', 'validate', 'cache', 'load'])

/** Iterations a second, or seconds an iteration when they are slow. */
const speed = (rate: number): string => (rate >= 1 || rate <= 0 ? `${rate.toFixed(1)} it/s` : `${(1 / rate).toFixed(1)} s/it`)

/** `0:09`, `12:05`, `1:02:03` */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60]
  const two = (value: number): string => String(value).padStart(2, '0')
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`
}

/** Whole percent, never 100 before the end. */
export const percent = (fraction: number): string => `${Math.floor(100 * Math.min(1, fraction))} %`.padStart(5)
