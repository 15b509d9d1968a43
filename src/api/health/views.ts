import { z } from 'zod'

export const HealthView = z.strictObject({ status: z.literal('ok'), uptimeS: z.number(), logLinesDropped: z.int() })
export type HealthView = z.infer<typeof HealthView>

export const ReadyView = z.strictObject({ status: z.literal('ready') })
