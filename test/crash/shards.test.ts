import { connect, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keys, shardOf } from '../../src/keys.ts'
import { startFarm, type Farm } from '../support/farm.ts'

/** A command as Redis' MONITOR shows it. */
interface Seen {
  source: string
  args: string[]
}

describe('three shards', () => {
  let farm: Farm
  const seen: Seen[] = []
  let monitor: Socket
  beforeAll(async () => {
    farm = await startFarm({ workers: 2, shards: 3, fake: ['--call-ms', '20'] })
    monitor = connect(farm.redis.url.slice('unix:'.length))
    monitor.write('MONITOR\r\n')
    createInterface(monitor).on('line', (line) => {
      const [, source = '', command = ''] = /^\+\S+ \[\d+ ([^\]]+)\] (.*)$/.exec(line) ?? []
      const args = [...command.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, text]) => text ?? '')
      if (args.length > 0) seen.push({ source, args })
    })
  })
  afterAll(async () => {
    monitor.destroy()
    await farm[Symbol.asyncDispose]()
  })

  it('hold sessions that run, pause, are cancelled, and recover, like one', async () => {
    const open = await farm.gate(5, 3)
    const ids = await Promise.all(Array.from({ length: 12 }, (_, i) => farm.submitSurely(`key-${i}`, { seed: i }, { tags: ['shards'] })))
    expect(new Set(ids.map(shardOf))).toEqual(new Set([0, 1, 2]))
    for (const [i, id] of ids.entries()) expect(await farm.submitSurely(`key-${i}`, { seed: i }, { tags: ['shards'] })).toBe(id)
    const [paused = '', cancelled = '', ...others] = ids.toReversed()
    await farm.control(paused, 'pause')
    await farm.control(cancelled, 'cancel')
    await farm.until(paused, 'paused')
    const { worker } = await farm.untilCall(ids[5] ?? '', 3)
    await worker.kill()
    await open()
    for (const id of others) expect(await farm.pictures(id)).toHaveLength(1)
    await farm.control(paused, 'resume')
    expect(await farm.pictures(paused)).toHaveLength(1)
    const { json } = await farm.control(cancelled, 'retry')
    expect(shardOf(json.id)).toBe(shardOf(cancelled))
    expect(await farm.pictures(json.id)).toHaveLength(1)
  })

  it('list as one, in order, page by page', async () => {
    const listed: { id: string; createdAt: string }[] = []
    for (let path = '/v1/sessions?limit=5&tag=shards'; path !== '';) {
      const { json } = await farm.client.get(path)
      listed.push(...json.sessions)
      path = json.next === null ? '' : `/v1/sessions?limit=5&tag=shards&cursor=${json.next}`
    }
    expect(new Set(listed.map(({ id }) => id))).toHaveProperty('size', 13)
    const times = listed.map(({ createdAt }) => createdAt)
    expect(times).toEqual(times.toSorted().toReversed())
  })

  it('no script crosses hash tags, as a cluster would refuse it', () => {
    const tagsOf = (args: string[]): string[] => args.flatMap((arg) => /^darkroom:(\{[^}]+\})/.exec(arg)?.[1] ?? [])
    const crossings: string[] = []
    let script: { text: string; tags: Set<string> } | undefined
    let count = 0
    for (const { source, args } of seen) {
      const [command = '', ...rest] = args
      if (source === 'lua' && script && command.toLowerCase() !== 'publish') {
        for (const tag of tagsOf(rest)) script.tags.add(tag)
        if (script.tags.size > 1) crossings.push(`${script.text}: ${command} ${rest.join(' ').slice(0, 200)}`)
      } else if (/^eval(sha)?$/i.test(command)) {
        count++
        const named = rest.slice(2, 2 + Number(rest[1]))
        script = { text: rest.slice(0, 4).join(' ').slice(0, 120), tags: new Set(tagsOf(named)) }
        if (script.tags.size > 1) crossings.push(`${script.text} names keys of several tags`)
      } else {
        script = undefined
        // MGET, DEL and the like: one slot each.
        const tags = new Set(tagsOf(rest.filter((arg) => !arg.includes(':events:'))))
        if (tags.size > 1 && !/subscribe|publish/i.test(command)) crossings.push(`${command} ${rest.join(' ').slice(0, 200)}`)
      }
    }
    expect(count).toBeGreaterThan(500)
    expect(seen.some(({ source }) => source === 'lua')).toBe(true)
    expect(crossings).toEqual([])
    expect(new Set(seen.flatMap(({ args }) => tagsOf(args))).size).toBeGreaterThan(5)
    expect(keys.outbox(2)).toContain('{s2}')
  })
})
