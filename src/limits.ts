/**
 * What one API key may have. Each limit is declared here once; its setting, its line in the documentation and its
 * refusal follow. All but the rate of requests count what is there: a session leaves its count with its end, a stream
 * with its lease, an allocation with its release, so no count can stay behind whatever dies.
 */
import { defineErrors, type DarkroomError } from './errors.ts'

interface Limit {
  /** What is counted, after a number. */
  of: string
  usual: number
  /** What to do about it, besides raising the limit. */
  remedy: string
  /** Seconds after which another try may be worth it. */
  retryAfterS: number
}

const declared = {
  requests: { of: 'requests in a minute', usual: 30_000, remedy: 'Send fewer requests', retryAfterS: 1 },
  sessions: { of: 'open sessions', usual: 10_000, remedy: 'Wait until some have ended, or cancel them', retryAfterS: 10 },
  commands: { of: 'open commands to devices', usual: 1000, remedy: 'Wait until some have ended', retryAfterS: 1 },
  allocations: { of: 'allocations on one device', usual: 1000, remedy: 'Release some', retryAfterS: 10 },
  streams: { of: 'open event streams', usual: 500, remedy: 'Close some', retryAfterS: 5 },
  waits: {
    of: 'requests that wait (`Prefer: wait`)',
    usual: 500,
    remedy: 'Send it without `Prefer: wait`, and follow the session by its events',
    retryAfterS: 1,
  },
} as const satisfies Record<string, Limit>

export type LimitName = keyof typeof declared
export const limitNames = Object.keys(declared) as LimitName[]
/** How many of each; Infinity where there is no limit. */
export type Limits = Readonly<Record<LimitName, number>>

export const settingOf = (name: LimitName): `DARKROOM_LIMIT_${Uppercase<LimitName>}` =>
  `DARKROOM_LIMIT_${name.toUpperCase() as Uppercase<LimitName>}`
export const usualOf = (name: LimitName): number => declared[name].usual
export const meaningOf = (name: LimitName): string => `maximum number of ${declared[name].of} of one API key; 0 is no limit`

/** The user of a machine without keys is all of its programs together. */
const localFactor = 100

/** How many a key may have; null is the user of a machine without keys. */
export const mostOf = (limits: Limits, name: LimitName, keyId: string | null): number => limits[name] * (keyId === null ? localFactor : 1)

/** Who is counted, where the count has a name: a key by its id. */
export const counted = (keyId: string | null): string => keyId ?? 'local'

const limitError = defineErrors(
  'limit',
  Object.fromEntries(
    limitNames.map((name) => [name, { class: 'transient', remedy: `${declared[name].remedy}; ${settingOf(name)} sets the limit.` }]),
  ) as Record<LimitName, { class: 'transient'; remedy: string }>,
)

/** What the headers of a refusal say of the limit. */
export interface Reached {
  limit: LimitName
  most: number
  retryAfterS: number
}

/** The refusal of what would be one more. `retryAfterS`: where it is known when there is room again. */
export function limitReached(
  name: LimitName,
  keyId: string | null,
  most: number,
  retryAfterS: number = declared[name].retryAfterS,
): DarkroomError {
  const who = keyId === null ? 'this machine has' : `API key ${keyId} has`
  const details: Reached = { limit: name, most, retryAfterS }
  return limitError(name, `${who} ${most} ${declared[name].of}, which is the limit`, { details: { ...details } })
}
