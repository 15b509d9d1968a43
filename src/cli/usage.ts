/** `darkroom usage`: what API keys have used, by day. */
import { connectApi } from './connection.ts'
import { duration } from './progress.ts'
import type { Output } from './sessions.ts'
import { inline, say, sayJson, table } from './terminal.ts'

export async function show({ json, url, days }: Output & { days?: number }): Promise<void> {
  const client = await connectApi(url === undefined ? {} : { url })
  const usage = await client.usage(days === undefined ? {} : { days })
  if (json) return sayJson(usage)
  if (usage.deviceSPerDay !== null) say(`each API key has devices for ${duration(usage.deviceSPerDay)} a day at most`)
  if (usage.days.length === 0) return say('nothing was used in these days')
  const rows = usage.days.map(({ day, keyId, sessions, deviceS, lostS, keptBytes, cacheHits, cacheMisses }) => [
    day,
    inline(keyId ?? 'without a key'),
    String(sessions),
    duration(deviceS),
    lostS === 0 ? '' : duration(lostS),
    `${(keptBytes / 2 ** 20).toFixed(1)} MiB`,
    cacheHits + cacheMisses === 0 ? '' : `${cacheHits} of ${cacheHits + cacheMisses}`,
  ])
  say(table(['DAY', 'KEY', 'SESSIONS', 'ON DEVICES', 'LOST', 'PICTURES', 'MODEL WAS THERE'], rows))
}
