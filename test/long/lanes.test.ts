/**
 * What waits in a lane before a worker comes, in which order it is taken, and what is seen when a worker takes nothing.
 */
import { Queue, Worker as BullWorker } from 'bullmq'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keys, stepsOfJob } from '../../src/keys.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually, sleep } from '../support/wait.ts'
import { inputOf, module, script, Scripted } from '../support/scripted.ts'

let farm: Farm
beforeAll(async () => {
  farm = await startFarm({ workers: 0, apis: 2, module, settings: { DARKROOM_HOST_LANE: '1' } })
})
afterAll(() => farm[Symbol.asyncDispose]())

const host = { prefix: keys.queuePrefix('host') }

describe('while no worker is there', { timeout: 60_000 }, () => {
  it('fifty submissions at once with one key, over two APIs: one session', async () => {
    const body = { workflow: 'program', input: inputOf(farm, script([{ signal: true }])) }
    const clients = farm.apis.map((api) => farm.clientOf(api))
    const answers = await Promise.all(
      Array.from({ length: 25 }, () => clients.map((client) => client.post('/v1/sessions', body, { 'Idempotency-Key': 'fifty' }))).flat(),
    )
    expect(answers.filter((answer) => answer.status === 202)).toHaveLength(1)
    expect(answers.filter((answer) => answer.status === 200)).toHaveLength(49)
    expect(new Set(answers.map((answer) => answer.json.id))).toHaveProperty('size', 1)
    expect((await farm.client.get('/v1/sessions')).json.sessions).toHaveLength(1)
    await farm.control(answers[0]?.json.id, 'cancel')
  })

  it('a queued session is paused at once, resumed it is queued again; cancelled in the queue, or just fetched from it, it never runs', async () => {
    const [resumed, queued, fetched] = await Promise.all(
      Array.from({ length: 3 }, () => Scripted.begin(farm, [{ say: 'one' }, { say: 'two' }])),
    )
    if (!resumed || !queued || !fetched) throw new Error('three were asked for')
    for (let i = 0; i < 3; i++) {
      expect((await farm.control(resumed.id, 'pause')).json.status).toBe('paused')
      expect((await farm.control(resumed.id, 'resume')).json.status).toBe('queued')
    }
    expect((await farm.control(queued.id, 'cancel')).json.status).toBe('cancelled')
    const connection = farm.eye.duplicate()
    const fetcher = new BullWorker('host', null, { ...host, connection, autorun: false, lockDuration: 60_000 })
    const token = 'of a worker that has fetched it and not taken it yet'
    const jobs = await eventually('its job', async () => {
      const seen = []
      for (let job = await fetcher.getNextJob(token, { block: false }); job; job = await fetcher.getNextJob(token, { block: false }))
        seen.push(job)
      return seen.flatMap(stepsOfJob).some((id) => id.startsWith(`${fetched.id}.`)) && seen
    })
    expect((await farm.control(fetched.id, 'cancel')).json.status).toBe('cancelled')
    // Whoever has fetched it meanwhile gives it back.
    for (const job of jobs) await job.moveToDelayed(Date.now() + 100, token)
    await fetcher.close()
    connection.disconnect()

    await farm.addWorker()
    expect(await resumed.said()).toEqual(['one', 'two'])
    expect(resumed.runs).toEqual({ one: 1, two: 1 })
    await sleep(1000)
    for (const play of [queued, fetched]) {
      expect(play.runs).toEqual({})
      expect((await farm.get(play.id)).status).toBe('cancelled')
    }
    await farm.workers[0]?.stop(10_000)
  })

  it('the higher priority goes first, of equals the older, and none given is the middle; what has begun goes on before them all', async () => {
    const priorities = [undefined, 0, 9, 5, 1, 9, undefined, 4, 6, 0]
    const plays: { play: Scripted; priority: number }[] = []
    for (const priority of priorities)
      plays.push({
        play: await Scripted.begin(farm, [{ say: 'one' }, { say: 'two' }], priority === undefined ? {} : { more: { priority } }),
        priority: priority ?? 5,
      })
    await farm.workers[0]?.start()
    for (const { play } of plays) await play.said()
    const spans = await Promise.all(
      plays.map(async ({ play }) => {
        const history = await farm.history(play.id)
        const starts = history.filter(({ type }) => type === 'step.started')
        return { id: play.id, begun: starts[0]?.at ?? 0, over: history.at(-1)?.at ?? 0 }
      }),
    )
    const inOrder = plays.toSorted((a, b) => b.priority - a.priority).map(({ play }) => play.id)
    expect(spans.toSorted((a, b) => a.begun - b.begun).map(({ id }) => id)).toEqual(inOrder)
    // Depth first: no session began before the one in front of it was over.
    const sorted = spans.toSorted((a, b) => a.begun - b.begun)
    expect(sorted.filter(({ begun }, i) => begun < (sorted[i - 1]?.over ?? 0))).toEqual([])
  })
})

describe('a session of many steps', { timeout: 60_000 }, () => {
  it('goes on with ten of them in a row, then others have their turn', async () => {
    const other = await Scripted.begin(farm, [{ signal: true }, { say: 'other' }])
    const names = Array.from({ length: 24 }, (_, i) => `s${i}`)
    const many = await Scripted.begin(
      farm,
      names.map((say, i) => ({ say, holds: i === 0 })),
    )
    await many.ran('s0')
    expect(await other.signal({})).toBe(200)
    await eventually('its job', async () => (await farm.eye.llen(`${keys.queuePrefix('host')}:host:wait`)) === 1)
    many.release('s0')
    expect(await many.said()).toEqual(names)
    const [its, theirs] = await Promise.all([farm.history(other.id), farm.history(many.id)])
    const turn = its.find(({ type }) => type === 'step.started')?.at ?? 0
    expect(theirs.filter(({ type, at }) => type === 'step.completed' && at <= turn)).toHaveLength(10)
  })
})

describe('while a queue is halted', { timeout: 60_000 }, () => {
  it('a worker that takes nothing although jobs wait is stalled: readiness and the session say so, and it goes on when its queue does', async () => {
    const statusOf = async (): Promise<string | undefined> => (await farm.records())[0]?.status
    // A machine that stands still for longer than a worker's record lasts has no worker for a moment.
    await eventually('ready', async () => (await farm.client.get('/v1/ready')).status === 200)
    const connection = farm.eye.duplicate()
    const queue = new Queue('host', { ...host, connection })
    await queue.pause()
    const play = await Scripted.begin(farm, [{ say: 'one' }])
    await eventually('the worker is stalled', async () => (await statusOf()) === 'stalled')
    const refused = await eventually('not ready', async () => {
      const answer = await farm.client.get('/v1/ready')
      return answer.status === 503 && answer
    })
    expect(refused.json).toMatchObject({
      code: 'api.not_ready',
      reasons: [expect.stringContaining(`stalled, taking nothing although jobs wait`)],
    })
    const { ready = '' } = farm.workers[0] ?? {}
    await eventually('the session says so', async () => (await farm.get(play.id)).waiting?.includes(ready))
    expect(play.runs).toEqual({})
    await queue.resume()
    await queue.close()
    connection.disconnect()
    expect(await play.said()).toEqual(['one'])
    await eventually('ready again', async () => (await statusOf()) === 'ready' && (await farm.client.get('/v1/ready')).status === 200)
  })
})
