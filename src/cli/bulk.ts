/** `darkroom bulk`: pause, resume, cancel, delete or tag all sessions that a filter finds. */
import { setTimeout as delay } from 'node:timers/promises'
import type { AddBulk, Bulk } from '../client/index.ts'
import { connectApi, type ConnectionOptions } from './connection.ts'
import { interruptible } from './sessions.ts'
import { Exit, inline, say, sayJson, whisper } from './terminal.ts'

type Options = ConnectionOptions & AddBulk['filter'] & { json?: boolean; yes?: boolean; addTag?: string[]; removeTag?: string[] }

const lookMs = 500

/** Says how many there are; with `yes` begins the action and waits for its end. @throws Exit 1 when some refused it */
export async function bulk(action: AddBulk['action'], { json, url, yes, addTag, removeTag, ...filter }: Options): Promise<void> {
  const client = await connectApi(url === undefined ? {} : { url })
  const tags = addTag || removeTag ? { add: addTag ?? [], remove: removeTag ?? [] } : undefined
  if (!yes) {
    const count = await client.bulk.count(filter)
    if (json) sayJson({ count })
    else say(`${count} ${count === 1 ? 'session' : 'sessions'}; without --yes nothing is done`)
    return
  }
  let now = await client.bulk.add({ action, filter, ...(tags && { tags }) })
  const goesOn = `the action goes on: GET /v1/bulk/${now.id}`
  await interruptible(goesOn, async (signal) => {
    while (now.state === 'running') {
      await delay(lookMs, undefined, { signal })
      now = await client.bulk.get(now.id)
      if (!json && now.state === 'running') whisper(inline(describe(now)))
    }
  })
  if (json) sayJson(now)
  else {
    say(inline(describe(now)))
    for (const { session, said } of now.failures) whisper(inline(`${session}: ${said}`))
  }
  if (now.failed > 0) throw new Exit(1)
}

const describe = ({ action, done, failed, total }: Bulk): string =>
  `${action}: ${done} of ${total}${failed > 0 ? `, ${failed} refused it` : ''}`
