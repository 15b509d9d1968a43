/** Who has changed what of the farm: the newest entries, in Redis. */
import { z } from 'zod'
import { keys } from './keys.ts'
import { runScript, translated, type ChainableCommander, type Redis } from './redis.ts'

/** Entries that are kept. */
export const keptEntries = 10_000

const Entry = z.strictObject({
  /** Milliseconds since 1970, by the clock of the process that has written it. */
  at: z.number(),
  /** The API key whose caller it was; null: the user of a machine without keys, or of the command line. */
  keyId: z.string().nullable(),
  /** Method and path of the request, or the command. */
  action: z.string(),
  requestId: z.string().nullable(),
})
export type AuditEntry = z.infer<typeof Entry>

const written = (entry: Omit<AuditEntry, 'at'>): string => JSON.stringify({ ...entry, at: Date.now() })

/** A transaction, in which the change itself stands too, with the entry that tells of it. */
export const audited = (transaction: ChainableCommander, entry: Omit<AuditEntry, 'at'>): ChainableCommander =>
  transaction.lpush(keys.audit(), written(entry)).ltrim(keys.audit(), 0, keptEntries - 1)

export class Audit {
  readonly #redis: Redis

  constructor(redis: Redis) {
    this.#redis = redis
  }

  /** Also in a full Redis. @throws DarkroomError `redis.unavailable` */
  async record(entry: Omit<AuditEntry, 'at'>): Promise<void> {
    await runScript(this.#redis, 'noteAudit', keys.audit(), [written(entry), keptEntries])
  }

  /** The newest first. */
  async list(limit: number): Promise<AuditEntry[]> {
    return (await translated(this.#redis.lrange(keys.audit(), 0, limit - 1))).map((text) => Entry.parse(JSON.parse(text)))
  }
}
