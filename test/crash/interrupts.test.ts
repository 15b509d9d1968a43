/**
 * Cancel and pause meet a session at every place where it can be, over HTTP; its children and signals meet them, too.
 */
import { afterAll, beforeAll, describe, it } from 'vitest'
import type { SessionEvent } from '../../src/engine/session.ts'
import type { Session } from '../../src/client/index.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually, sleep } from '../support/wait.ts'
import { module, Scripted, type Line } from '../support/scripted.ts'

/** A first step, so that what follows is met under way. */
const first: Line = { say: 'first' }
/** Longer than a back-off. */
const backoffMs = 1500

let farm: Farm
beforeAll(async () => {
  farm = await startFarm({ workers: 2, module, settings: { DARKROOM_HOST_LANE: '12' } })
})
afterAll(() => farm[Symbol.asyncDispose]())

/** Where a session can be met: its lines, and what shows that it is there. */
interface Place {
  lines: Line[]
  arrived: (play: Scripted) => Promise<unknown>
}

const waits = (play: Scripted, what: string): Promise<unknown> =>
  eventually(`${play.id} waits for ${what}`, async () => (await farm.get(play.id)).waiting === what)
const paused = async (play: Scripted): Promise<void> => {
  await farm.control(play.id, 'pause')
  await farm.until(play.id, 'paused')
}
const child = (line: Line): Line[] => [first, { child: [line] }]

const places: Record<string, Place> = {
  'while a step runs': { lines: [first, { say: 'held', holds: true }], arrived: (play) => play.ran('held') },
  'in a delay': { lines: [first, { waitMs: 60_000 }], arrived: (play) => waits(play, 'a timer') },
  'in the back-off of a step that failed': {
    lines: [first, { say: 'again', fails: 2 }],
    arrived: (play) => farm.event(play.id, 'step.retrying'),
  },
  'while it waits for a signal': { lines: [first, { signal: true }], arrived: (play) => waits(play, 'a signal') },
  'while its child runs a step': { lines: child({ say: 'held', holds: true }), arrived: (play) => play.ran('held') },
  'while its child is in a delay': {
    lines: child({ waitMs: 60_000 }),
    arrived: async (play) => farm.until((await play.child()).id, 'running'),
  },
  'while its child is in a back-off': {
    lines: child({ say: 'again', fails: 2 }),
    arrived: async (play) => farm.event((await play.child()).id, 'step.retrying'),
  },
  'while its grandchild waits for a signal': {
    lines: [first, { child: [{ child: [{ signal: true }] }] }],
    arrived: async (play) => waits(play, 'child sessions: program@1'),
  },
  'while it pauses, with a step running': {
    lines: [first, { say: 'held', holds: true }],
    arrived: async (play) => {
      await play.ran('held')
      await farm.control(play.id, 'pause')
    },
  },
  'when it is paused with its child': {
    lines: child({ signal: true }),
    arrived: async (play) => {
      await play.child()
      await paused(play)
    },
  },
}

describe.concurrent('a session', { timeout: 60_000 }, () => {
  it.for(Object.entries(places))(
    'cancelled %s: it ends once, with its children; nothing of it runs again',
    async ([, place], { expect }) => {
      const play = await Scripted.begin(farm, place.lines)
      await place.arrived(play)
      const { status, json } = await farm.control(play.id, 'cancel')
      expect([status, json.status]).toEqual([200, 'cancelled'])
      const family = await eventually('its children are cancelled, too', async () => {
        const ids = [play.id]
        for (const id of ids) {
          const { sessions } = (await farm.client.get(`/v1/sessions?parent=${id}`)).json as { sessions: Session[] }
          if (sessions.some((session) => session.status !== 'cancelled')) return undefined
          ids.push(...sessions.map((session) => session.id))
        }
        return ids
      })
      const isFree = async (): Promise<boolean> =>
        (await farm.records()).every(({ running }) => running.every(({ session }) => session === null || !family.includes(session)))
      await eventually('its lanes are free', isFree, 5000)
      const histories = (): Promise<SessionEvent[][]> => Promise.all(family.map((id) => farm.history(id)))
      const [before, runs] = [await histories(), play.runs]
      for (const history of before) {
        expect(history.filter(({ type }) => type === 'session.cancelled')).toHaveLength(1)
        expect(history.at(-1)?.type).toBe('session.cancelled')
      }
      await sleep(backoffMs)
      play.release('held')
      expect(await play.signal('late')).toBe(409)
      expect(await histories()).toEqual(before)
      expect(play.runs).toEqual(runs)
    },
  )
})

describe.concurrent('a session', { timeout: 60_000 }, () => {
  it('paused in the back-off of a step: it is not tried again while paused, and once after', async ({ expect }) => {
    const play = await Scripted.begin(farm, [{ say: 'again', fails: 1 }])
    await farm.event(play.id, 'step.retrying')
    await paused(play)
    await sleep(backoffMs)
    expect(play.runs).toEqual({ again: 1 })
    await farm.control(play.id, 'resume')
    expect(await play.said()).toEqual(['again'])
    expect(play.runs).toEqual({ again: 2 })
  })

  it('paused in a delay: the clock stands still, and what was left of it is waited for', async ({ expect }) => {
    const play = await Scripted.begin(farm, [{ waitMs: 2500 }, { say: 'late' }])
    await paused(play)
    await sleep(3000)
    expect((await farm.get(play.id)).status).toBe('paused')
    expect((await farm.control(play.id, 'resume')).status).toBe(200)
    expect(await play.said()).toEqual(['waited', 'late'])
    const at = (type: string): Promise<number> => farm.history(play.id).then((all) => all.find((event) => event.type === type)?.at ?? 0)
    const ran = (await at('session.pausing')) - (await at('session.created')) + (await at('timer.fired')) - (await at('session.resumed'))
    expect(ran).toBeGreaterThanOrEqual(2500)
  })

  it('told three signals while it is paused: they are applied in order when it goes on, each once', async ({ expect }) => {
    const play = await Scripted.begin(farm, [{ signal: true }, { signal: true }, { signal: true }, { say: 'after' }])
    await paused(play)
    for (const n of [1, 2, 3, 1, 2, 3]) expect(await play.signal(n, `signal-${n}`)).toBe(200)
    const before = await farm.history(play.id)
    expect(before.filter(({ type }) => type === 'signal.received')).toEqual([])
    await farm.control(play.id, 'resume')
    expect(await play.said()).toEqual([1, 2, 3, 'after'])
  })

  it('paused while its child runs a step: it is paused when the step is over, and both go on', async ({ expect }) => {
    const play = await Scripted.begin(farm, [{ child: [{ say: 'held', holds: true }, { say: 'more' }] }])
    await play.ran('held')
    expect((await farm.control(play.id, 'pause')).json.status).toBe('pausing')
    await farm.until((await play.child()).id, 'pausing')
    play.release('held')
    await farm.until(play.id, 'paused')
    expect((await play.child()).status).toBe('paused')
    await sleep(300)
    expect(play.runs).toEqual({ held: 1 })
    await farm.control(play.id, 'resume')
    expect(await play.said()).toEqual([['held', 'more']])
    expect(play.runs).toEqual({ held: 1, more: 1 })
  })
})

describe.concurrent('over HTTP', { timeout: 60_000 }, () => {
  it('a child that fails for ever: its parent ends as its workflow says, failed or going on without it', async ({ expect }) => {
    const lines: Line[] = [{ child: [{ say: 'never', fails: 99 }] }, { say: 'after' }]
    const [strict, lenient] = await Promise.all([Scripted.begin(farm, lines), Scripted.begin(farm, lines, { ignores: true })])
    const { error } = await farm.until(strict.id, 'failed')
    expect(error?.code).toBe('test.flaky')
    expect(await lenient.said()).toEqual(['failed', 'after'])
    for (const play of [strict, lenient]) {
      expect(play.runs['never']).toBe(3)
      expect((await play.child()).status).toBe('failed')
    }
  })

  it('a child is told a signal, and its parent what it said; a grandchild, too', async ({ expect }) => {
    const play = await Scripted.begin(farm, [{ child: [{ signal: true }, { child: [{ say: 'deep' }] }] }])
    const { id } = await play.child()
    await eventually('the child listens', async () => (await farm.get(id)).waiting === 'a signal')
    expect((await farm.client.post(`/v1/sessions/${id}/signal`, { type: 'go', data: 'hello' })).status).toBe(200)
    expect(await play.said()).toEqual([['hello', ['deep']]])
  })

  it('a child that somebody cancels: its parent ends as its workflow says', async ({ expect }) => {
    const play = await Scripted.begin(farm, [{ child: [{ signal: true }] }, { say: 'after' }], { ignores: true })
    await farm.control((await play.child()).id, 'cancel')
    expect(await play.said()).toEqual(['failed', 'after'])
  })
})
