import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { Changes } from '../../src/api/live/changes.ts'
import { Connection } from '../../src/api/live/connection.ts'
import { Devices } from '../../src/api/live/devices.ts'
import { Turns } from '../../src/api/live/turns.ts'
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
  let isThere = true
  const engine = {
    get: (id: string) => {
      asked.get++
      return Promise.resolve(isThere ? sessionOf(id, version) : undefined)
    },
    history: () => Promise.resolve([]),
    list: ({ keyId }: { keyId: string | null }) => {
      asked.list++
      if (keyId !== null) return Promise.resolve({ sessions: [], next: null })
      return Promise.resolve({ sessions: Array.from({ length: count }, (_, n) => sessionOf(idOf(n), version)), next: null })
    },
    newest: () => Promise.resolve(Array.from({ length: count }, (_, n) => sessionOf(idOf(n), version))),
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
  const remove = (): void => {
    isThere = false
    change(1)
  }
  return { engine, asked, change, remove, version: () => version }
}

interface Heard {
  told: LiveFrame[][]
  isFree: boolean
}

/** Connections of one API, each with a caller of its own; `keyId` null sees all. */
function connections(engine: EnginePort) {
  const log = createLog('silent', 'api')
  const changes = new Changes(engine, log)
  const devices = new Devices(engine)
  const turns = new Turns(2)
  const over = new AbortController()
  const running: Promise<void>[] = []
  const open = async (request: object, keyId: string | null = null): Promise<Heard> => {
    const heard: Heard = { told: [], isFree: true }
    const connection = new Connection({
      engine,
      changes,
      group: changes.group(),
      devices,
      turns,
      caller: { keyId, scopes: new Set(['read']) },
      requestId: 'x',
      outlet: { isFree: () => heard.isFree, send: (message) => void heard.told.push(JSON.parse(String(message)) as LiveFrame[]) },
    })
    connection.take(JSON.stringify(request))
    running.push(connection.run(over.signal))
    await untilTold(heard, 1)
    return heard
  }
  const close = async (): Promise<void> => {
    over.abort()
    await Promise.all(running)
    await changes.close()
  }
  return { open, close }
}

async function untilTold({ told }: Heard, count: number): Promise<void> {
  while (told.length < count) await delay(10)
}

describe('a live connection', () => {
  it('says nothing to a caller that has not taken what was sent, keeps nothing for it, and then says what is the case', async () => {
    const farm = played(100)
    const { open, close } = connections(farm.engine)
    const heard = await open({ list: {} })
    heard.isFree = false
    await delay(300)
    const before = { get: farm.asked.get, told: heard.told.length }
    farm.change(200)
    await delay(600)
    // 20,000 changes cost no question while nobody hears the answer.
    expect({ get: farm.asked.get, told: heard.told.length }).toEqual(before)
    heard.isFree = true
    await untilTold(heard, before.told + 1)
    await close()
    const frames = heard.told.slice(before.told).flat()
    expect(frames).toHaveLength(100)
    for (const frame of frames) expect(frame).toMatchObject({ type: 'session', session: { version: farm.version() } })
    expect(farm.asked.get - before.get).toBe(100)
  })

  it('shares what it is told with all who want the same list, and keeps up with them after it could not hear', async () => {
    const farm = played(40)
    const { open, close } = connections(farm.engine)
    const [one, other, slow] = await Promise.all([open({ list: {} }), open({ list: { limit: 7 } }), open({ list: {} })])
    slow.isFree = false
    const before = farm.asked.get
    farm.change(3)
    await Promise.all([untilTold(one, 2), untilTold(other, 2)])
    expect(farm.asked.get - before).toBe(40)
    expect(other.told[1]).toEqual(one.told[1])
    expect(one.told[1]).toHaveLength(40)
    expect(slow.told).toHaveLength(1)
    slow.isFree = true
    await untilTold(slow, 2)
    await close()
    expect(slow.told[1]).toHaveLength(40)
    for (const frame of slow.told[1] ?? []) expect(frame).toMatchObject({ type: 'session', session: { version: farm.version() } })
  })

  it('speaks in the round of its group: forty are told of a change one group after another, each within its pace', async () => {
    const farm = played(10)
    const { open, close } = connections(farm.engine)
    const all = await Promise.all(Array.from({ length: 40 }, () => open({ list: {} })))
    await delay(400)
    const counts = all.map(({ told }) => told.length)
    farm.change(1)
    await delay(60)
    const early = all.filter(({ told }, i) => told.length > (counts[i] ?? 0)).length
    expect(early).toBeGreaterThan(0)
    expect(early).toBeLessThan(30)
    await delay(400)
    for (const [i, { told }] of all.entries()) expect(told.slice(counts[i]).flat()).toHaveLength(10)
    // However many are told, a record is read once.
    expect(farm.asked.get).toBe(10)
    await close()
  })

  it('of another key hears nothing of them, not even that they are gone', async () => {
    const farm = played(20)
    const { open, close } = connections(farm.engine)
    const [all, other] = await Promise.all([open({ list: {} }), open({ list: {}, sessions: { [idOf(3)]: 0 } }, 'another')])
    farm.change(1)
    await untilTold(all, 2)
    farm.remove()
    await untilTold(all, 3)
    await close()
    expect(all.told[2]).toHaveLength(20)
    for (const frame of all.told[2] ?? []) expect(frame.type).toBe('gone')
    expect(other.told.flat().filter(({ type }) => type !== 'list')).toEqual([{ type: 'gone', id: idOf(3) }])
  })
})
