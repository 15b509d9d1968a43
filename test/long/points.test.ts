/**
 * Processes that die at named places: each crash point, in each kind of process that passes it. In one farm the APIs
 * die, in the other the workers; those alone sweep there, so what a dead one has left is finished by others of its
 * kind: for them it is work they never saw.
 */
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { childSessionId, keys } from '../../src/keys.ts'
import { points as allPoints, type Point } from '../../src/engine/points.ts'
import type { Status } from '../../src/engine/session.ts'
import type { Session } from '../../src/client/index.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually, sleep } from '../support/wait.ts'
import type { Answer } from '../support/http.ts'
import { picture as pictureOf, readLedger, step, type Node, type Output } from '../support/program.ts'
import { journey as journeyOf, journeySteps } from '../support/programs.ts'
import { anySession, type Kind } from '../support/points.ts'
import { startReceiver } from '../support/receiver.ts'
import { inputOf, module } from '../support/scripted.ts'
import type { GroupProcess } from '../support/process.ts'

const patienceMs = 180_000

/** A farm whose processes are started again whenever they die. */
class World {
  readonly farm: Farm
  /** Whatever ended otherwise than by SIGKILL. */
  readonly problems: string[] = []
  readonly #deaths = new Map<number, NodeJS.Signals | null>()
  #starting: Promise<unknown>[] = []
  #isOver = false
  #sent = 0

  constructor(farm: Farm) {
    this.farm = farm
    for (const process of [...farm.apis, ...farm.workers]) void this.#keep(process)
  }

  async #keep(process: GroupProcess): Promise<void> {
    for (;;) {
      const { pid } = process
      const { code, signal } = await process.exited
      this.#deaths.set(pid, signal)
      if (this.#isOver) return
      if (signal !== 'SIGKILL') return void this.problems.push(`${process.name} ended with ${signal ?? code}\n${process.lastWords()}`)
      // It may die while it starts, too.
      const start = process.start().catch(() => undefined)
      this.#starting.push(start)
      await start
    }
  }

  /** Polls as long as nothing has ended that should not have. */
  poll<T>(what: string, look: () => Promise<T | undefined | false>): Promise<T> {
    const lookIfWell = (): Promise<T | undefined | false> => {
      if (this.problems.length > 0) throw new Error(this.problems.join('\n'))
      return look()
    }
    return eventually(what, lookIfWell, patienceMs)
  }

  async close(): Promise<void> {
    this.#isOver = true
    await Promise.all(this.#starting)
    await this.farm[Symbol.asyncDispose]()
  }

  /** One request to one API after another until it is answered: as a client does that has no answer, or a 503. */
  ask(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    return this.poll(`an answer to ${method} ${path}`, async () => {
      const { apis } = this.farm
      const api = apis[this.#sent++ % apis.length]
      if (!api?.isAlive) return undefined
      const options = { headers, ...(body !== undefined && { body }) }
      const answer = await this.farm
        .clientOf(api)
        .request(method, path, options)
        .catch((error: NodeJS.ErrnoException) => {
          if (error.code === undefined) throw error
          return undefined
        })
      return answer?.status === 503 ? undefined : answer
    })
  }

  async submit(workflow: string, input: Record<string, unknown>, more: Record<string, unknown> = {}): Promise<string> {
    const { status, json, text } = await this.ask(
      'POST',
      '/v1/sessions',
      { workflow, input, ...more },
      { 'Idempotency-Key': crypto.randomUUID() },
    )
    if (status !== 202 && status !== 200) throw new Error(`submit → ${status} ${text}`)
    return (json as Session).id
  }

  /** A session that runs a program, and the folder of its steps in the ledger. */
  async run(program: Node, more: Record<string, unknown> = {}): Promise<{ id: string; folder: string }> {
    const input = inputOf(this.farm, program)
    return { id: await this.submit('program', input, more), folder: join(input.ledger, input.key) }
  }

  async go(id: string): Promise<void> {
    const { status, text } = await this.ask('POST', `/v1/sessions/${id}/signal`, { type: 'go', eventId: 'go' })
    if (status !== 200) throw new Error(`signal → ${status} ${text}`)
  }

  async control(id: string, verb: 'pause' | 'resume' | 'cancel'): Promise<void> {
    const { status, text } = await this.ask('POST', `/v1/sessions/${id}/${verb}`)
    if (status !== 200) throw new Error(`${verb} → ${status} ${text}`)
  }

  /** Waits for a status, past the APIs. */
  async until(id: string, status: Status): Promise<void> {
    let last: string | null = null
    const look = async (): Promise<boolean> => (last = await this.farm.eye.hget(keys.session(id), 'status')) === status
    await this.poll(`${id} ${status}`, look).catch(async (error: Error) => {
      const history = (await this.farm.history(id)).map(({ type, step, key }) => [type, step, key].filter(Boolean).join(' '))
      const because = await this.farm.eye.hget(keys.session(id), 'error')
      throw new Error(`${error.message}, but ${last} ${because}:\n${history.join('\n')}`, { cause: error })
    })
  }

  async output<T>(id: string): Promise<T> {
    await this.until(id, 'succeeded')
    return JSON.parse((await this.farm.eye.hget(keys.session(id), 'output')) ?? 'null') as T
  }

  arm(id: string, ...points: Point[]): void {
    for (const point of points) this.farm.points.arm(point, id)
  }

  /** Of the points, those at which no process has died soon after all was over. */
  async missed(id: string, points: Point[]): Promise<Point[]> {
    const alive = (): Point[] => points.filter((point) => this.farm.points.diedAt(point, id) === undefined)
    for (let waited = 0; alive().length > 0 && waited < 5000; waited += 100) await sleep(100)
    return alive()
  }

  /** Waits until a process has died of each. */
  async dead(id: string, ...points: Point[]): Promise<void> {
    for (const point of points) {
      const signal = await this.poll(`a process dead at ${point}`, () => {
        const pid = this.farm.points.diedAt(point, id)
        return Promise.resolve(pid !== undefined && this.#deaths.get(pid))
      })
      expect(signal, `at ${point}`).toBe('SIGKILL')
    }
  }
}

/** What is done while a process dies at some points, and what is right in the end. */
type Play = (world: World) => Promise<void>
interface Scenario {
  points: Point[]
  play: Play
}

let number = 0
/** Checks that exactly one run of each step is in the output; a step may run twice. */
async function expectJourney(world: World, { id, folder }: { id: string; folder: string }, steps = journeySteps): Promise<void> {
  const { tokens } = await world.output<Output>(id)
  expect(Object.keys(tokens).toSorted()).toEqual(steps)
  const lines = readLedger(folder)
  for (const [name, token] of Object.entries(tokens)) expect(lines.get(name), name).toContainEqual(expect.objectContaining({ token }))
}

/** A process that dies at one point may have been about to pass another; the next journey passes that again. */
const mostJourneys = 5

/** A journey whose processes die at these points, for the session itself or for its child. */
function journey(points: Point[], { of = 'itself', kills = 0 }: { of?: 'itself' | 'child'; kills?: number } = {}): Scenario {
  const play = async (world: World, left: Point[] = points, journeys = 1): Promise<void> => {
    const session = await world.run(journeyOf({ kills }))
    const { id } = session
    const subject = of === 'child' ? childOfJourney(id) : id
    world.arm(subject, ...left)
    await world.go(id)
    await expectJourney(world, session)
    const missed = await world.missed(subject, left)
    const isLast = journeys === mostJourneys
    await world.dead(subject, ...left.filter((point) => isLast || !missed.includes(point)))
    if (missed.length > 0) return play(world, missed, journeys + 1)
  }
  return { points, play: (world) => play(world) }
}
const childOfJourney = (id: string): string => childSessionId(1, `${id}.3.0`)

type Disturb = (world: World, id: string, child: string) => Promise<void>

/** A journey whose child waits while `disturb` goes on. Points that are passed before that are armed `early`. */
function held(points: Point[], disturb: Disturb, early: Point[] = []): Scenario {
  const play = async (world: World): Promise<void> => {
    const session = await world.run(journeyOf({ waits: true }))
    const { id } = session
    const child = childOfJourney(id)
    world.arm(id, ...early)
    await world.go(id)
    await world.until(child, 'running')
    await disturb(world, id, child)
    const isCancelled = (await world.farm.eye.hget(keys.session(child), 'status')) === 'cancelled'
    if (!isCancelled) await world.go(child)
    await expectJourney(world, session, isCancelled ? journeySteps.filter((name) => name !== 'child') : journeySteps)
  }
  return { points, play }
}

type Spoil = (world: World, album: string, picture: string, open: () => Promise<void>, further: () => Promise<unknown>) => Promise<void>

/**
 * A picture that `spoil` disturbs. It is held at call 3 until `open` is called; `further` holds it at call 6 instead.
 * Other sessions' workers die around it, and a step that loses five leases without a new checkpoint would be poisonous.
 * `before`: done before it, by whose end it begins then.
 */
function picture(points: Point[], spoil: Spoil, before: Node[] = []): Scenario {
  return {
    points,
    play: async (world) => {
      const seed = 1000 + number++
      const open = await world.farm.gate(seed, 3)
      const { id: album } = await world.run({ do: 'sequence', of: [{ do: 'signal' }, ...before, { do: 'picture', seed }] })
      await spoil(world, album, childSessionId(1, `${album}.${2 + before.length}.0`), open, () => world.farm.gate(seed, 6))
      const { said } = await world.output<{ said: { images?: { sha256: string }[] }[] }>(album)
      const images = said.at(-1)?.images
      const again = await world.submit('image-generation', pictureOf(seed))
      expect(images).toHaveLength(1)
      expect(images).toEqual((await world.output<{ images: { sha256: string }[] }>(again)).images)
    },
  }
}

/** Waits until the denoise step of a picture runs in its n-th attempt, and is held. */
async function untilHeld(world: World, id: string, attempt: number): Promise<void> {
  await world.poll(`attempt ${attempt} at the denoise step of ${id}, at call 3`, async () => {
    const starts = (await world.farm.history(id)).filter((event) => event.type === 'step.started' && event.step === 'inference.denoise')
    const checkpoint = await world.farm.eye.hget(keys.step(starts[attempt - 1]?.key ?? ''), 'checkpoint')
    return checkpoint !== null && (JSON.parse(checkpoint) as { call: number }).call >= 3
  })
}

/** A pause that a signal comes into, and a resume that applies it. */
const inbox = (points: Point[], control: Point[]): Scenario => ({
  points: [...points, ...control],
  play: async (world) => {
    const session = await world.run(journeyOf())
    const { id } = session
    world.arm(id, ...control)
    await world.control(id, 'pause')
    await world.dead(id, ...control)
    await world.until(id, 'paused')
    await world.go(id)
    world.arm(id, ...points)
    await world.control(id, 'resume')
    await world.dead(id, ...points)
    await expectJourney(world, session)
  },
})

/** Checks that each item of a batch was opened once, and that each has succeeded. */
async function expectItems(world: World, id: string, count: number): Promise<void> {
  expect(await world.output(id)).toEqual({ total: count, succeeded: count, failed: 0, cancelled: 0 })
  const states = Object.values(await world.farm.eye.hgetall(keys.itemStates(id)))
  expect(states.map((state) => state.split(':')[0])).toEqual(Array<string>(count).fill('succeeded'))
  // A session that no item knows would be one that ran twice.
  const children = await world.farm.members((shard) => keys.index(shard, 'parent', id))
  expect(children.toSorted()).toEqual(states.flatMap((state) => state.split(':')[1] ?? []).toSorted())
}

/** A batch whose processes die as they open its items, and as they count one. */
const batch: Scenario = {
  points: ['items.before', 'items.after'],
  play: async (world) => {
    for (const point of ['items.before', 'items.after'] as const) {
      const { ledger } = inputOf(world.farm, step())
      // Whoever dies first is the one that opens the first items, or one that counts the end of one.
      world.arm(anySession, point)
      const items = Array.from({ length: 8 }, (_, n) => ({ program: step({ n, ms: 100 }), key: crypto.randomUUID() }))
      const id = await world.submit('batch', { workflow: 'program', input: { ledger }, items, window: 2 })
      await world.dead(anySession, point)
      await expectItems(world, id, items.length)
    }
  },
}

const approval: Scenario = {
  points: ['grant.before', 'grant.after'],
  play: async (world) => {
    const session = await world.run(journeyOf())
    const { id } = session
    for (const point of ['grant.before', 'grant.after'] as const) {
      world.arm(id, point)
      await world.ask('POST', `/v1/sessions/${id}/approvals`, { signals: ['go'] })
      await world.dead(id, point)
    }
    const { json } = await world.ask('POST', `/v1/sessions/${id}/approvals`, { signals: ['go'] })
    const { status } = await world.ask('POST', json.url, { signal: 'go' })
    expect([200, 409]).toContain(status)
    await expectJourney(world, session)
  },
}

const deadline: Scenario = {
  points: ['end.before', 'end.after'],
  play: async (world) => {
    const { id } = await world.run(journeyOf(), { deadlineS: 600 })
    // Out of the clock while the points are armed; then it is over at once, however busy the machine is.
    await world.control(id, 'pause')
    await world.until(id, 'paused')
    expect(await world.farm.eye.hset(keys.session(id), 'left:deadline', 0)).toBe(0)
    world.arm(id, 'end.before', 'end.after')
    await world.control(id, 'resume')
    await world.dead(id, 'end.before', 'end.after')
    await world.until(id, 'failed')
    expect((await world.ask('GET', `/v1/sessions/${id}`)).json).toMatchObject({ error: { code: 'session.deadline_exceeded' } })
  },
}

/** A slot on every worker is taken by a picture that is held, and another one comes next while `disturb` goes on. */
function crowded(points: Point[], disturb: (world: World, held: string, next: string) => Promise<void>): Scenario {
  return {
    points,
    play: async (world) => {
      const held: { id: string; open: () => Promise<void> }[] = []
      for (const _ of world.farm.workers) {
        const seed = 1000 + number++
        const open = await world.farm.gate(seed, 3)
        // The first is the least urgent one.
        const id = await world.submit('image-generation', pictureOf(seed), { priority: held.length })
        await untilHeld(world, id, 1)
        held.push({ id, open })
      }
      const next = await world.submit('image-generation', pictureOf(1000 + number++))
      const holders = async (): Promise<Record<string, string>> => world.farm.eye.hgetall(keys.admissionSlots(0))
      const comesNext = async (): Promise<boolean> =>
        Object.entries(await holders()).some(([step, holder]) => step.startsWith(next) && holder.startsWith('gpu.'))
      await world.poll(`${next} comes next`, comesNext)
      await disturb(world, held[0]?.id ?? '', next)
      for (const { id, open } of held) await open().then(() => world.until(id, 'succeeded'))
      await world.until(next, 'succeeded')
    },
  }
}

/** Tags and a deadline that are changed while the process dies; the client asks again. */
const changed: Scenario = {
  points: ['change.before', 'change.after'],
  play: async (world) => {
    const { id } = await world.run(journeyOf(), { tags: ['before'], deadlineS: 600 })
    world.arm(id, 'change.before', 'change.after')
    const { json } = await world.ask('PATCH', `/v1/sessions/${id}`, { tags: ['after'], deadlineS: null })
    await world.dead(id, 'change.before', 'change.after')
    expect(json).toMatchObject({ tags: ['after'], deadlineAt: null })
    await world.control(id, 'cancel')
  },
}

const stranded: Scenario = {
  points: ['wait.before', 'wait.after'],
  play: async (world) => {
    const { id } = await world.run({ do: 'sequence', of: [{ do: 'signal' }, { do: 'run', operation: 'test.nowhere', input: {} }] })
    world.arm(id, 'wait.before', 'wait.after')
    await world.go(id)
    await world.dead(id, 'wait.before', 'wait.after')
    await world.control(id, 'cancel')
    await world.until(id, 'cancelled')
  },
}

/** A schedule, whose processes die while it falls due: each instant has one session. */
const scheduled: Scenario = {
  points: ['schedule.before', 'schedule.started'],
  play: async (world) => {
    const input = inputOf(world.farm, step())
    const body = { name: 'often', everyS: 3, overlap: 'allow', session: { workflow: 'program', input } }
    const { id } = (await world.ask('POST', '/v1/schedules', body)).json as { id: string }
    world.arm(id, 'schedule.before', 'schedule.started')
    await world.dead(id, 'schedule.before', 'schedule.started')
    const path = `/v1/schedules/${id}`
    await world.poll('two sessions after that', async () => (await world.ask('GET', path)).json.occurrences.length >= 3)
    await world.ask('POST', `${path}/pause`)
    const { occurrences } = (await world.ask('GET', path)).json as { occurrences: { session: string }[] }
    const { sessions } = (await world.ask('GET', `/v1/sessions?tag=schedule:${id}`)).json as { sessions: { id: string }[] }
    expect(sessions.map((each) => each.id).toSorted()).toEqual(occurrences.map(({ session }) => session).toSorted())
    for (const each of sessions) await world.until(each.id, 'succeeded')
    await world.ask('DELETE', path)
  },
}

/** An action over many sessions, whose processes die while it is applied. */
const bulk: Scenario = {
  points: ['bulk.before', 'bulk.after'],
  play: async (world) => {
    const sessions = await Promise.all([0, 1, 2].map(() => world.run(journeyOf(), { tags: ['bulk'] })))
    world.arm(anySession, 'bulk.before', 'bulk.after')
    const { id } = (await world.ask('POST', '/v1/bulk', { action: 'cancel', filter: { tag: 'bulk' } })).json as { id: string }
    await world.dead(anySession, 'bulk.before', 'bulk.after')
    await world.poll(`${id} done`, async () => (await world.ask('GET', `/v1/bulk/${id}`)).json.state === 'done')
    expect((await world.ask('GET', `/v1/bulk/${id}`)).json).toMatchObject({ total: 3, done: 3, failed: 0 })
    for (const session of sessions) await world.until(session.id, 'cancelled')
  },
}

/** An end that a webhook is told of, while the processes that tell it die. */
const told: Scenario = {
  points: ['webhook.before', 'webhook.after'],
  play: async (world) => {
    await using receiver = await startReceiver()
    const webhook = (await world.ask('POST', '/v1/webhooks', { url: receiver.url })).json.id as string
    const { id } = await world.run(journeyOf(), { webhook })
    world.arm(id, 'webhook.before', 'webhook.after')
    await world.control(id, 'cancel')
    await world.dead(id, 'webhook.before', 'webhook.after')
    const path = `/v1/webhooks/${webhook}/deliveries?state=delivered`
    await world.poll(`${id} told`, async () => (await world.ask('GET', path)).json.deliveries.length === 1)
    expect(new Set(receiver.letters.map(({ headers }) => headers['webhook-id']))).toEqual(new Set([`ended-${id}`]))
  },
}

const scenarios: Record<Kind, Scenario[]> = {
  api: [
    {
      points: ['create.before', 'create.after'],
      play: async (world) => {
        for (const point of ['create.before', 'create.after'] as const) {
          world.arm(anySession, point)
          const session = await world.run(journeyOf(), { tags: ['created'] })
          await world.dead(anySession, point)
          await world.go(session.id)
          await expectJourney(world, session)
        }
        // What was refused, or not answered, has not become a second session.
        expect((await world.ask('GET', '/v1/sessions?tag=created')).json.sessions).toHaveLength(2)
      },
    },
    journey(['commit.before', 'commit.after']),
    journey(['dispatch.before', 'outbox.before']),
    journey(['dispatch.after']),
    journey(['timer.before']),
    journey(['expire.before', 'expire.after'], { kills: 1 }),
    inbox(['inbox.before'], ['control.before', 'control.after']),
    picture(['settle.before', 'settle.after'], async (world, album, _, open) => {
      // The child is held: its end would settle it too.
      world.arm(album, 'settle.before', 'settle.after')
      await world.go(album)
      await world.dead(album, 'settle.before', 'settle.after')
      await open()
    }),
    // What was paused waits in line again.
    picture(['join.before', 'join.after', 'admit.before', 'admit.after'], async (world, album, id, open) => {
      await world.go(album)
      await untilHeld(world, id, 1)
      await world.control(id, 'pause')
      await world.until(id, 'paused')
      world.arm(id, 'join.before', 'join.after', 'admit.before', 'admit.after')
      await world.control(id, 'resume')
      await world.dead(id, 'join.before', 'join.after', 'admit.before', 'admit.after')
      await open()
    }),
    picture(['move.before', 'move.after'], async (world, album, id, open) => {
      await world.go(album)
      await untilHeld(world, id, 1)
      world.arm(id, 'move.before', 'move.after')
      expect((await world.ask('POST', `/v1/sessions/${id}/priority`, { priority: 8 })).json).toMatchObject({ priority: 8 })
      await world.dead(id, 'move.before', 'move.after')
      await open()
    }),
    crowded(['withdraw.before', 'withdraw.after'], async (world, _, next) => {
      world.arm(next, 'withdraw.before', 'withdraw.after')
      expect((await world.ask('POST', '/v1/queue/pause', {})).status).toBe(200)
      await world.dead(next, 'withdraw.before', 'withdraw.after')
      expect((await world.ask('POST', '/v1/queue/resume', {})).status).toBe(200)
    }),
    // The API that lets an urgent session in asks a worker to make way.
    crowded(['yield.before', 'yield.after'], async (world, held) => {
      world.arm(held, 'yield.before', 'yield.after')
      const urgent = await world.submit('image-generation', pictureOf(1000 + number++), { priority: 9 })
      await world.dead(held, 'yield.before', 'yield.after')
      await world.until(urgent, 'succeeded')
    }),
    // What a dead worker leaves goes on without a line.
    picture(['place.before', 'place.after'], async (world, album, id, open) => {
      await world.go(album)
      await untilHeld(world, id, 1)
      world.arm(id, 'place.before', 'place.after')
      const { worker } = await world.farm.event(id, 'step.started', 'inference.denoise')
      process.kill(world.farm.worker(worker).pid, 'SIGKILL')
      await world.dead(id, 'place.before', 'place.after')
      await open()
    }),
    held(['parent.told'], async (world, _, child) => {
      world.arm(child, 'parent.told')
      await world.control(child, 'cancel')
      await world.dead(child, 'parent.told')
    }),
    batch,
    approval,
    deadline,
    stranded,
    changed,
    told,
    scheduled,
    bulk,
    {
      points: ['delete.before', 'delete.after'],
      play: async (world) => {
        const { id } = await world.run(journeyOf())
        await world.control(id, 'cancel')
        world.arm(id, 'delete.before', 'delete.after')
        expect((await world.ask('DELETE', `/v1/sessions/${id}`)).status).toBe(404)
        await world.dead(id, 'delete.before', 'delete.after')
        expect(await world.farm.eye.exists(keys.session(id), keys.history(id))).toBe(0)
      },
    },
  ],
  worker: [
    picture(['release.before', 'release.after'], async (world, album, id, open, further) => {
      await world.go(album)
      await untilHeld(world, id, 1)
      for (const point of ['release.before', 'release.after'] as const) {
        world.arm(id, point)
        await world.control(id, 'pause')
        await world.dead(id, point)
        await world.until(id, 'paused')
        await further()
        const attempts = (await world.farm.history(id)).filter(
          (event) => event.type === 'step.started' && event.step === 'inference.denoise',
        )
        await world.control(id, 'resume')
        await untilHeld(world, id, attempts.length + 1)
      }
      await open()
    }),
    picture(['renew.before', 'renew.after'], async (world, album, id, open, further) => {
      world.arm(id, 'renew.before')
      await world.go(album)
      await world.dead(id, 'renew.before')
      world.arm(id, 'renew.after')
      await further()
      await world.dead(id, 'renew.after')
      await open()
    }),
    picture(['checkpoint.before', 'checkpoint.after'], async (world, album, id, open) => {
      world.arm(id, 'checkpoint.before', 'checkpoint.after')
      await open()
      await world.go(album)
      await world.dead(id, 'checkpoint.before', 'checkpoint.after')
    }),
    picture(['place.before', 'place.after'], async (world, album, id, open) => {
      world.arm(id, 'place.before', 'place.after')
      await open()
      await world.go(album)
      await world.dead(id, 'place.before', 'place.after')
    }),
    // The worker that has ended the step before makes it, and lets it in.
    picture(
      ['join.before', 'join.after', 'admit.before', 'admit.after'],
      async (world, album, id, open) => {
        world.arm(id, 'join.before', 'join.after', 'admit.before', 'admit.after')
        await open()
        await world.go(album)
        await world.dead(id, 'join.before', 'join.after', 'admit.before', 'admit.after')
      },
      [step()],
    ),
    // The worker that lets an urgent session in asks another one to make way. Where the held one's own worker dies of
    // it, that picture goes on elsewhere.
    crowded(['yield.before', 'yield.after'], async (world, held) => {
      world.arm(held, 'yield.before', 'yield.after')
      const { id: urgent } = await world.run({ do: 'sequence', of: [step(), { do: 'picture', seed: 1000 + number++ }] }, { priority: 9 })
      await world.dead(held, 'yield.before', 'yield.after')
      await world.until(urgent, 'succeeded')
    }),
    held(['control.before', 'control.after'], async (world, id, child) => {
      world.arm(child, 'control.before', 'control.after')
      await world.control(id, 'pause')
      await world.dead(child, 'control.before', 'control.after')
      await world.until(child, 'paused')
      await world.until(id, 'paused')
      await world.control(id, 'resume')
      await world.until(child, 'running')
    }),
    journey(['take.before', 'take.after']),
    journey(['progress.before', 'progress.after']),
    journey(['note.before', 'note.after']),
    journey(['artifact.before', 'artifact.after']),
    journey(['deliver.before', 'deliver.after']),
    journey(['commit.before', 'commit.after']),
    journey(['dispatch.before', 'outbox.before']),
    journey(['dispatch.after']),
    journey(['retry.before']),
    journey(['retry.after']),
    held(['settle.before', 'settle.after'], (world, id) => world.dead(id, 'settle.before', 'settle.after'), [
      'settle.before',
      'settle.after',
    ]),
    journey(['create.before', 'create.after'], { of: 'child' }),
    journey(['parent.told'], { of: 'child' }),
    journey(['expire.before', 'expire.after'], { kills: 1 }),
    journey(['timer.before']),
    inbox(['inbox.before'], []),
    batch,
    deadline,
    stranded,
  ],
}

const kinds = ['api', 'worker'] as const
/** Every other step goes through its queue. */
const settings = { DARKROOM_WEBHOOK_HOSTS: '*', DARKROOM_WEBHOOK_NETS: '127.0.0.0/8', DARKROOM_STEPS_IN_A_ROW: '2' }
const worlds = new Map<Kind, World>()
const outcomes = new Map<string, Promise<void>>()

/**
 * Begins the scenarios of a kind, one after another: the death that one of them is after would take away the process
 * that another one needs.
 */
function begin(kind: Kind, world: World): void {
  let before: Promise<void> = Promise.resolve()
  for (const { points, play } of scenarios[kind]) {
    const outcome = before.then(() => play(world))
    // Each test that waits for it hears of its failure.
    before = outcome.catch(() => undefined)
    for (const point of points) outcomes.set(`${kind} ${point}`, outcome)
  }
}

// Ten processes, on a machine that may be busy with something else.
const hookMs = 240_000
beforeAll(async () => {
  await Promise.all(
    kinds.map(async (kind) => {
      const pools = kind === 'api' ? { apis: 3, workers: 2 } : { apis: 1, workers: 4 }
      const world = new World(await startFarm({ ...pools, shards: 1, module, dying: kind, fake: ['--call-ms', '5'], settings }))
      worlds.set(kind, world)
      begin(kind, world)
    }),
  )
}, hookMs)
afterAll(async () => {
  await Promise.all([...worlds.values()].map((world) => world.close()))
}, hookMs)

describe.each(kinds)('of processes of one kind (%s)', { timeout: 300_000 }, (kind) => {
  it.each(scenarios[kind].flatMap(({ points }) => points))(
    'SIGKILL at %s: others finish; each session ends once, with the right result',
    async (point) => {
      await expect(outcomes.get(`${kind} ${point}`)).resolves.toBeUndefined()
    },
  )

  it('no process ended otherwise, or passed a crash point at which none of its kind was killed', () => {
    expect(worlds.get(kind)?.problems).toEqual([])
    const tested = scenarios[kind].flatMap(({ points }) => points)
    expect(worlds.get(kind)?.farm.points.passed().toSorted()).toEqual(tested.toSorted())
  })
})

it('every crash point has had its kill', () => {
  const tested = new Set(kinds.flatMap((kind) => scenarios[kind].flatMap(({ points }) => points)))
  expect([...tested].toSorted()).toEqual([...allPoints].toSorted())
})
