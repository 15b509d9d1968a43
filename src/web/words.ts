/** Figures and times in words. */
const units = ['B', 'kB', 'MB', 'GB', 'TB']

export function inBytes(bytes: number): string {
  const power = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, bytes)) / 3)))
  const value = bytes / 1000 ** power
  return `${value >= 100 || power === 0 ? Math.round(value) : value.toFixed(1)} ${units[power]}`
}

export function inTime(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, '0')} min`
}

/** A time of today as the clock shows it, of another day with its date. */
export function atTime(iso: string): string {
  const at = new Date(iso)
  const isToday = at.toDateString() === new Date().toDateString()
  return isToday
    ? at.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })
    : at.toLocaleDateString([], { day: 'numeric', month: 'short' })
}

export const dayAndTime = (iso: string): string => new Date(iso).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' })

export const secondsBetween = (from: string, to: string | null): number =>
  (to === null ? Date.now() : Date.parse(to)) / 1000 - Date.parse(from) / 1000

export const plural = (count: number, word: string): string => `${count.toLocaleString()} ${word}${count === 1 ? '' : 's'}`

export const capital = (text: string): string => text.slice(0, 1).toUpperCase() + text.slice(1)

/** What there is of these, in one line. */
export const listed = (...parts: readonly (string | number | false | null | undefined)[]): string => parts.filter(Boolean).join(' · ')
