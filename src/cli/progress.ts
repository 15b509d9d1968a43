/** Progress in words, as people of this field write it. Pure. */
import type { Progress } from '../engine/session.ts'
import { size } from './bars.ts'

/** `image 2/4  denoise 12/20  9.8 it/s  0:01 left` */
export function describeProgress({ step, stage, call, calls, rate, etaS, image, images }: Progress): string {
  const verb = stage === 'load' ? 'load model' : (step.split('.')[1] ?? step)
  // Steps on memory count bytes.
  const count = step.startsWith('memory.') ? size : String
  return [
    images !== undefined && images > 1 ? `image ${image}/${images}` : '',
    call !== undefined && calls !== undefined && calls > 1 ? `${verb} ${count(call)}/${count(calls)}` : verb,
    rate === undefined ? '' : speed(rate),
    etaS === undefined ? '' : `${duration(etaS)} left`,
  ]
    .filter(Boolean)
    .join('  ')
}

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
