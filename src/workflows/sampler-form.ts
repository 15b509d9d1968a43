/** A sampler and a schedule as a client may name them, and how they become the pair that a request keeps. */
import { z } from 'zod'
import {
  noSampler,
  noSchedule,
  samplerOf,
  samplers,
  scheduleOf,
  schedules,
  settle,
  withoutSchedules,
  type SamplerName,
  type ScheduleName,
} from '../domains/samplers.ts'

/** Those that are offered, and any name that means one of them. */
export const SamplerForm = z
  .union([z.enum(samplers), z.string()])
  .superRefine((name, context) => {
    if (!samplerOf(name)) context.addIssue({ code: 'custom', message: noSampler(name) })
  })
  .describe('sampler; names of ComfyUI and older ones are taken too, as dpmpp_2m_sde or DPM++ 2M SDE Karras')

export const ScheduleForm = z
  .union([z.enum(schedules), z.string()])
  .superRefine((name, context) => {
    if (!scheduleOf(name)) context.addIssue({ code: 'custom', message: noSchedule(name) })
  })
  .describe(`how the steps are spread over the noise; default: as the model says. ${withoutSchedules.join(', ')} take Automatic alone`)

/** Replaces names by the pair they mean; without a sampler, a schedule waits for the model's own. */
export function withPair<Form extends { sampler?: string | undefined; schedule?: string | undefined }>(
  form: Form,
  context: z.RefinementCtx,
): Omit<Form, 'sampler' | 'schedule'> & { sampler?: SamplerName; schedule?: ScheduleName } {
  const { sampler: named, schedule: spread, ...rest } = form
  const schedule = spread === undefined ? undefined : scheduleOf(spread)
  const pair = named === undefined ? undefined : samplerOf(named)
  if (!pair) return { ...rest, ...(schedule && { schedule }) }
  const settled = settle(pair, schedule)
  if (typeof settled !== 'string') return { ...rest, ...settled }
  context.addIssue({ code: 'custom', path: ['schedule'], message: settled })
  return rest
}
