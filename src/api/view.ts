/** How HTTP shows values of the domains. */
import { z } from 'zod'

/** A time as HTTP shows it. */
export const Time = z.iso.datetime().meta({ example: '2030-01-01T12:00:00.000Z' })

export const iso = (ms: number): string => new Date(ms).toISOString()
export const isoOrNull = (ms: number | null): string | null => (ms === null ? null : iso(ms))

/** `nullable()` on a named schema would make the component itself nullable. */
export const orNull = <S extends z.ZodType>(schema: S) => z.union([schema, z.null()])
