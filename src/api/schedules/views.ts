/** Schedules as HTTP shows them. */
import { z } from 'zod'
import { overlaps } from '../../engine/overlap.ts'
import { occurrenceStates, type Schedule } from '../../engine/schedules.ts'
import { nextInstants } from '../../engine/schedule-rule.ts'
import { SubmitOptions } from '../../engine/session.ts'
import { SubmitSession } from '../sessions/views.ts'
import { iso, Time } from '../view.ts'

/** How many coming instants are shown. */
const shownNext = 3

/** Idempotency keys are remembered for seven days; an occurrence is decided well before that. */
const mostCatchUpS = 6 * 86_400

const Cron = z.string().min(1).max(200).meta({ description: 'five fields: minute, hour, day, month, weekday', example: '30 2 * * 1-5' })
const EveryS = z
  .int()
  .min(1)
  .max(366 * 86_400)
const Timezone = z.string().min(1).max(64).meta({ example: 'Europe/Berlin' })

export const AddSchedule = z
  .strictObject({
    name: z.string().regex(/^[^\p{C}]{1,64}$/u, 'must be 1 to 64 printable characters'),
    cron: Cron.optional(),
    timezone: Timezone.optional().meta({ description: 'of `cron`; default: UTC' }),
    everyS: EveryS.optional().meta({ description: 'seconds between two occurrences, in place of `cron`' }),
    overlap: z.enum(overlaps).default('skip').meta({ description: 'what happens while the session before has not ended' }),
    catchUpS: z.int().min(10).max(mostCatchUpS).default(3600).meta({ description: 'how late an occurrence may still start, seconds' }),
    session: SubmitSession.meta({ description: 'what is submitted each time' }),
  })
  .refine(({ cron, everyS }) => (cron === undefined) !== (everyS === undefined), {
    path: ['cron'],
    message: 'say either `cron` or `everyS`',
  })
  .refine(({ cron, timezone }) => cron !== undefined || timezone === undefined, { path: ['timezone'], message: 'is said of `cron` alone' })
  .meta({ id: 'AddSchedule' })

/** As it was accepted: with what it had left out. */
const ScheduledSession = z
  .strictObject({ workflow: z.string(), input: z.record(z.string(), z.unknown()), ...SubmitOptions.shape })
  .meta({ id: 'ScheduledSession' })

export const ScheduleView = z
  .strictObject({
    id: z.string(),
    name: z.string(),
    cron: z.string().nullable(),
    timezone: z.string().nullable(),
    everyS: z.int().nullable(),
    overlap: z.enum(overlaps),
    catchUpS: z.int(),
    session: ScheduledSession,
    keyId: z.string().nullable(),
    createdAt: Time,
    isPaused: z.boolean(),
    waiting: z.array(Time).meta({ description: 'instants that wait for the session before' }),
    next: z.array(Time).meta({ description: 'the next instants; empty while it is paused' }),
    occurrences: z
      .array(
        z.strictObject({
          instant: Time,
          is: z.enum(occurrenceStates),
          session: z.string().nullable(),
          said: z.string().nullable().meta({ description: 'why it was not started' }),
        }),
      )
      .meta({ description: 'the last 20, the latest first' }),
  })
  .meta({ id: 'Schedule' })

export function presentSchedule(schedule: Schedule): z.infer<typeof ScheduleView> {
  const { id, name, rule, overlap, catchUpS, submission, keyId, createdAt, isPaused, waiting, after, occurrences } = schedule
  return {
    id,
    name,
    cron: 'cron' in rule ? rule.cron : null,
    timezone: 'cron' in rule ? rule.timezone : null,
    everyS: 'cron' in rule ? null : rule.everyS,
    overlap,
    catchUpS,
    session: submission,
    keyId,
    createdAt: iso(createdAt),
    isPaused,
    waiting: waiting.map(iso),
    next: isPaused ? [] : nextInstants(rule, after, shownNext).map(iso),
    occurrences: occurrences.map(({ instant, is, session, said }) => ({ instant: iso(instant), is, session, said })),
  }
}
