/** `darkroom repair`: cuts the damaged end off the append-only file of the private Redis, and keeps a copy. */
import { join } from 'node:path'
import { readConfig } from '../config.ts'
import { repairRedis } from '../redis-server.ts'
import { say } from './terminal.ts'

/** @throws DarkroomError `redis.taken` while the farm runs, `redis.not_found`, `redis.damaged` beyond repair */
export async function repair(): Promise<void> {
  const { data, home } = readConfig()
  const done = await repairRedis({ folder: join(data, 'redis'), home })
  if (!done) return say(`The append-only file in ${join(data, 'redis')} is whole; nothing was changed.`)
  say(`${done.file} was cut after its last whole command: ${done.bytes} bytes of its end are gone.`)
  say(`As it was, it is kept in ${done.copy}.`)
}
