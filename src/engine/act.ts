/** An act on a session: one script, with a crash point before it is sent and one after its answer. */
import { keys } from '../keys.ts'
import { runScript, type Redis, type ScriptReply } from '../redis.ts'
import { acts, type AtPoint, type Script } from './points.ts'

export interface ActParts {
  redis: Redis
  at: AtPoint | undefined
}

export function act({ redis, at }: ActParts, name: Script, id: string, args: (string | number)[]): Promise<ScriptReply> {
  at?.(`${acts[name]}.before`, id)
  const reply = runScript(redis, name, keys.session(id), args)
  return at ? reply.then((answer) => (at(`${acts[name]}.after`, id), answer)) : reply
}
