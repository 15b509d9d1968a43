import { configError } from '../errors.ts'
import { keys } from '../keys.ts'
import { translated, type Redis } from '../redis.ts'

/**
 * The number of shards may only grow: a process with fewer would not see what lies in the others.
 * @throws DarkroomError `config.invalid`
 */
export async function checkShards(redis: Redis, shards: number): Promise<void> {
  const known = Number((await translated(redis.get(keys.shards()))) ?? 0)
  if (known > shards) {
    const problem = `DARKROOM_SHARDS is ${shards}, but this farm has ${known} shards`
    throw configError('invalid', problem, {
      remedy: `Set DARKROOM_SHARDS=${known} for every API and worker; it may only grow.`,
    })
  }
  if (known < shards) await translated(redis.set(keys.shards(), shards))
}
