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
import { picture as pictureOf, readLedger, type Node, type Output } from '../support/program.ts'
import { journey as journeyOf, journeySteps } from '../support/programs.ts'
import { anySession, type Kind } from '../support/points.ts'
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
 */
function picture(points: Point[], spoil: Spoil): Scenario {
  return {
    points,
    play: async (world) => {
      const seed = 1000 + number++
      const open = await world.farm.gate(seed, 3)
      const { id: album } = await world.run({ do: 'sequence', of: [{ do: 'signal' }, { do: 'picture', seed }] })
      await spoil(world, album, childSessionId(1, `${album}.2.0`), open, () => world.farm.gate(seed, 6))
      const { said } = await world.output<{ said: [signal: unknown, picture: { images: { sha256: string }[] }] }>(album)
      const { images } = said[1]
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
    picture(['place.before', 'place.after'], async (world, album, id, open) => {
      await world.go(album)
      await untilHeld(world, id, 1)
      await world.control(id, 'pause')
      await world.until(id, 'paused')
      world.arm(id, 'place.before', 'place.after')
      await world.control(id, 'resume')
      await world.dead(id, 'place.before', 'place.after')
      await open()
    }),
    held(['parent.told'], async (world, _, child) => {
      world.arm(child, 'parent.told')
      await world.control(child, 'cancel')
      await world.dead(child, 'parent.told')
    }),
    deadline,
    stranded,
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
    deadline,
    stranded,
  ],
}

const kinds = ['api', 'worker'] as const
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
      const world = new World(await startFarm({ ...pools, shards: 1, module, dying: kind, fake: ['--call-ms', '5'] }))
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
