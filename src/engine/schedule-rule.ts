/** When a schedule falls due. Pure: instants are milliseconds since 1970, by the wall clock, as people mean them. */
import { Cron } from 'croner'
import { z } from 'zod'
import { invalidFields } from '../errors.ts'

/** A cron pattern of five fields in a time zone, or every so many seconds from a moment on. */
export const Rule = z.union([
  z.strictObject({ cron: z.string(), timezone: z.string() }),
  z.strictObject({ everyS: z.number(), from: z.number() }),
])
export type Rule = z.infer<typeof Rule>

const patternOf = ({ cron, timezone }: { cron: string; timezone: string }): Cron =>
  new Cron(cron, { timezone, paused: true, mode: '5-part' })

/**
 * The first instant after this one; null when there is none any more. A local time that a clock change leaves out falls
 * on the moment of the change, one that comes twice counts the first time, and patterns of intervals go on by real
 * time.
 */
export function nextInstant(rule: Rule, after: number): number | null {
  if ('cron' in rule) return patternOf(rule).nextRun(new Date(after))?.getTime() ?? null
  const everyMs = rule.everyS * 1000
  return rule.from + (Math.floor(Math.max(0, after - rule.from) / everyMs) + 1) * everyMs
}

/** The next instants after this one, `most` of them. */
export function nextInstants(rule: Rule, after: number, most: number): number[] {
  const found: number[] = []
  for (let last: number | null = after; found.length < most;) {
    last = nextInstant(rule, last)
    if (last === null) break
    found.push(last)
  }
  return found
}

/** @throws DarkroomError `api.invalid` for what is no pattern, no time zone, or never falls due */
export function checkRule(rule: Rule, now: number): void {
  if (!('cron' in rule)) return
  const fault = (field: string, message: string): Error => invalidFields([{ field, message }])
  try {
    new Intl.DateTimeFormat('en', { timeZone: rule.timezone })
  } catch {
    throw fault('timezone', `must be the name of a time zone, as Europe/Berlin or UTC, and is ${JSON.stringify(rule.timezone)}`)
  }
  let first: number | null
  try {
    first = nextInstant(rule, now)
  } catch (error) {
    throw fault('cron', `must be five fields, as \`30 2 * * 1-5\`: ${(error as Error).message}`)
  }
  if (first === null) throw fault('cron', 'never falls due')
}
