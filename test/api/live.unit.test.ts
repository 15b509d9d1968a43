import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { Changes } from '../../src/api/live/changes.ts'
import { Connection } from '../../src/api/live/connection.ts'
import type { LiveFrame } from '../../src/api/live/views.ts'
import type { EnginePort } from '../../src/api/context.ts'
import type { Overseer } from '../../src/engine/feed.ts'
import type { Session } from '../../src/engine/session.ts'
import { noUse } from '../../src/engine/usage.ts'
import { createLog } from '../../src/log.ts'

const idOf = (n: number): string => `0-${String(n).padStart(26, '0')}`
const sessionOf = (id: string, version: number): Session =>
  ({
    id,
    version,
    status: 'running',
    workflow: 'sketch@1',
    waiting: null,
    input: {},
    tags: [],
    createdAt: 0,
    startedAt: 0,
    endedAt: null,
    deadlineAt: null,
    deadlineLeftMs: null,
    output: null,
    error: null,
    progress: null,
    keyId: null,
    use: noUse,
  }) as unknown as Session

/** An engine of so many sessions, and how often it was asked for one. */
function played(count: number) {
  let overseer: Overseer | undefined
  let version = 1
  const asked = { get: 0, list: 0 }
  const engine = {
    get: (id: string) => {
      asked.get++
      return Promise.resolve(sessionOf(id, version))
    },
    list: () => {
      asked.list++
      return Promise.resolve({ sessions: Array.from({ length: count }, (_, n) => sessionOf(idOf(n), version)), next: null })
    },
    oversee: (given: Overseer) => {
      overseer = given
      return Promise.resolve(() => undefined)
    },
  } as unknown as EnginePort
  const change = (times: number): void => {
    for (let i = 0; i < times; i++) {
      version++
      for (let n = 0; n < count; n++) overseer?.changed(idOf(n))
    }
  }
  return { engine, asked, change, version: () => version }
}

describe('a live connection', () => {
  it('says nothing to a caller that has not taken what was sent, keeps nothing for it, and then says what is the case', async () => {
    const farm = played(100)
    const changes = new Changes(farm.engine, createLog('silent', 'api'))
    const told: LiveFrame[][] = []
    let isFree = true
    const connection = new Connection({
      engine: farm.engine,
      changes,
      caller: { keyId: null, scopes: new Set(['read']) },
      requestId: 'x',
      outlet: { isFree: () => isFree, send: (text) => void told.push(JSON.parse(text) as LiveFrame[]) },
    })
    const over = new AbortController()
    connection.take('{"list":{}}')
    const running = connection.run(over.signal)
    while (told.length === 0) await delay(10)
    isFree = false
    await delay(300)
    const before = { get: farm.asked.get, told: told.length }
    farm.change(200)
    await delay(600)
    // 20,000 changes cost no question while nobody hears the answer.
    expect({ get: farm.asked.get, told: told.length }).toEqual(before)
    isFree = true
    while (told.length === before.told) await delay(10)
    over.abort()
    await running
    await changes.close()
    const frames = told.slice(before.told).flat()
    expect(frames).toHaveLength(100)
    for (const frame of frames) expect(frame).toMatchObject({ type: 'session', session: { version: farm.version() } })
    expect(farm.asked.get - before.get).toBe(100)
  })
})
