/**
 * A whole farm for one test: a private Redis, API processes, worker processes with the fake Python child, each in a process group of its own.
 *
 *     await using farm = await startFarm({ workers: 2, fake: ['--call-ms', '20'] })
 *
 * Its end is part of the test: every session must have ended, and no process, lease, timer, open effect or outbox entry may be left over.
 */
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { root } from '../../src/config.ts'
import { keys } from '../../src/keys.ts'
import { connect, type Redis } from '../../src/redis.ts'
import type { Document } from '../../src/engine/transition.ts'
import { ended, type Progress, type SessionEvent, type Status } from '../../src/engine/session.ts'
import { type WorkerRecord } from '../../src/farm/record.ts'
import { ApiClient } from './http.ts'
import type { ApiSetup } from './api.ts'
import { fakeChild, realChild } from './child.ts'
import { writeModel } from './model.ts'
import { ArmedPoints, type Kind } from './points.ts'
import { GroupProcess } from './process.ts'
import { startProxy, type FaultProxy } from './proxy.ts'
import { defaultShards, startTestRedis, type TestRedis } from './redis.ts'
import type { WorkerSetup } from './worker.ts'

export interface WorkerOptions {
  /** Switches of the fake child. */
  fake?: string[]
  stall?: WorkerSetup['stall']
  /** File URL of a module with further workflows and operations; of a whole farm, for its APIs too. */
  module?: string | undefined
  preload?: string[]
  env?: Record<string, string>
  /** The product's own Python child and the models of the repository, in place of the fake ones. */
  real?: boolean
  /** Device memory in plain TypeScript, as where the native addon is not built. */
  plain?: boolean
}

export interface FarmOptions extends WorkerOptions {
  apis?: number
  /** How many, or one by one what sets each apart. */
  workers?: number | WorkerOptions[]
  shards?: number
  checkpointCalls?: number
  /** Further settings (`DARKROOM_…`) of every process. */
  settings?: Record<string, string>
  /** Durability and memory of its Redis. */
  redis?: Parameters<typeof startTestRedis>[0]
  /** Every process reaches Redis through a proxy that can break the line. */
  proxied?: boolean
  /** Processes of this kind die at crash points that the test arms, and they alone sweep; needs a `module`. */
  dying?: Kind
}

/** A session as HTTP gives it. */
export interface SessionView {
  id: string
  status: Status
  waiting: string | null
  output: { images: { sha256: string; seed: number; url: string }[] } | null
  error: { code: string; message: string; details?: Record<string, unknown> } | null
  progress: Progress | null
  input: Record<string, unknown>
}

export interface ReceiptView {
  steps: {
    key: string
    step: string
    attempts: {
      worker: string
      startedAt: string
      endedAt: string | null
      end: 'completed' | 'failed' | 'released' | 'lost' | 'cancelled' | null
      resumedFrom: { call: number; sha256: string } | null
      stats: Record<string, unknown> | null
      error: { code: string } | null
    }[]
  }[]
  notes: { at: string; note: string }[]
}

export interface ChildVitals {
  sessions: Record<string, number>
  busy: { action: string } | null
}

const waitMs = 30_000

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** Polls until `look` finds something. @throws Error that names what did not come about. */
export async function eventually<T>(what: string, look: () => Promise<T | undefined | false>, ms = waitMs): Promise<T> {
  const until = Date.now() + ms
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (Date.now() > until) throw new Error(`not within ${ms / 1000} s: ${what}`)
    await sleep(25)
  }
}

export async function startFarm(options: FarmOptions = {}): Promise<Farm> {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-farm-'))
  if (!options.real) await writeModel(join(folder, 'models'))
  const redis = await startTestRedis(options.redis)
  const farm = new Farm(folder, redis, options, options.proxied ? await startProxy(redis.url) : undefined)
  try {
    await farm.open()
    return farm
  } catch (error) {
    await farm.end()
    throw error
  }
}

export class Farm implements AsyncDisposable {
  readonly folder: string
  readonly redis: TestRedis
  readonly apis: GroupProcess[] = []
  readonly workers: GroupProcess[] = []
  /** A connection of the test's own, to look with. */
  readonly eye: Redis
  readonly points: ArmedPoints
  readonly #options: FarmOptions
  readonly #env: Record<string, string | undefined>
  readonly #clients = new Map<GroupProcess, ApiClient>()

  readonly #proxy: FaultProxy | undefined

  constructor(folder: string, redis: TestRedis, options: FarmOptions, proxy: FaultProxy | undefined) {
    this.folder = folder
    this.#proxy = proxy
    this.redis = redis
    this.#options = options
    this.points = new ArmedPoints(join(folder, 'points'))
    this.eye = connect(redis.url, { patience: 'wait' })
    this.#env = {
      PATH: process.env['PATH'],
      HOME: process.env['HOME'],
      TMPDIR: process.env['TMPDIR'],
      DARKROOM_DATA: join(folder, 'data'),
      DARKROOM_MODELS: join(options.real ? root : folder, 'models'),
      DARKROOM_THREADS: '1',
      DARKROOM_SHARDS: String(this.shards),
      DARKROOM_CHECKPOINT_CALLS: String(options.checkpointCalls ?? 1),
      DARKROOM_DRAIN_S: '10',
      DARKROOM_LOG: 'info',
      REDIS_URL: proxy?.url ?? redis.url,
      ...options.settings,
    }
  }

  get shards(): number {
    return this.#options.shards ?? defaultShards
  }

  /** Members of an index or clock, of all shards. */
  async members(key: (shard: number) => string): Promise<string[]> {
    const all = await Promise.all(Array.from({ length: this.shards }, (_, shard) => this.eye.zrange(key(shard), '0', '-1')))
    return all.flat()
  }

  get artifacts(): string {
    return join(this.folder, 'data', 'artifacts')
  }

  /** The line between the processes and Redis, of a farm that is `proxied`. */
  get proxy(): FaultProxy {
    if (!this.#proxy) throw new Error('this farm reaches its Redis directly')
    return this.#proxy
  }

  /** The first API's. */
  get client(): ApiClient {
    return this.clientOf(this.#first())
  }

  clientOf(api: GroupProcess): ApiClient {
    const client = this.#clients.get(api)
    if (!client) throw new Error(`${api.name} is not an API of this farm`)
    return client
  }

  #first(): GroupProcess {
    const [api] = this.apis
    if (!api) throw new Error('this farm has no API')
    return api
  }

  async open(): Promise<void> {
    const { apis = 1, workers = 1 } = this.#options
    // One after another: the first writes the store's id, which the others compare.
    for (let i = 0; i < apis; i++) await this.addApi()
    const each = typeof workers === 'number' ? Array.from({ length: workers }, (): WorkerOptions => ({})) : workers
    await Promise.all(each.map((worker) => this.addWorker(worker)))
  }

  #dying(kind: Kind): { points?: string; sweeps?: boolean } {
    const { dying } = this.#options
    if (dying === undefined) return {}
    return dying === kind ? { points: this.points.folder, sweeps: true } : { sweeps: false }
  }

  async addApi(): Promise<GroupProcess> {
    const name = `api-${this.apis.length}`
    const env = { ...this.#env, DARKROOM_PORT: String(await freePort()) }
    const { module, preload = [] } = this.#options
    const setup: ApiSetup = { ...(module !== undefined && { module }), ...this.#dying('api') }
    const args = [JSON.stringify(setup)]
    const log = join(this.folder, `${name}.log`)
    const api = new GroupProcess({ name, entry: join(root, 'test/support/api.ts'), args, env, preload, log })
    this.apis.push(api)
    await api.start()
    this.#clients.set(api, new ApiClient(api.ready))
    return api
  }

  async addWorker(options: WorkerOptions = {}): Promise<GroupProcess> {
    const name = `worker-${this.workers.length}`
    const { fake = [], stall = {}, module, preload = [], env = {}, real = false, plain = false } = { ...this.#options, ...options }
    const attempts = join(this.folder, 'attempts', name)
    const command = real ? realChild() : fakeChild('--gates', join(this.folder, 'gates'), ...fake)
    const setup: WorkerSetup = { command, attempts, stall, plain, ...(module !== undefined && { module }), ...this.#dying('worker') }
    const worker = new GroupProcess({
      name,
      entry: join(root, 'test/support/worker.ts'),
      args: [JSON.stringify(setup)],
      env: { ...this.#env, ...env },
      preload,
      log: join(this.folder, `${name}.log`),
    })
    this.workers.push(worker)
    await mkdir(attempts, { recursive: true })
    await worker.start()
    return worker
  }

  /**
   * Holds denoise steps of this seed once they have done so many calls; the returned function lets them go on. With it a test meets a step
   * in its middle however busy the machine is.
   */
  async gate(seed: number, call: number): Promise<() => Promise<void>> {
    const file = join(this.folder, 'gates', String(seed))
    await mkdir(join(this.folder, 'gates'), { recursive: true })
    await writeFile(`${file}.part`, String(call))
    await rename(`${file}.part`, file)
    return () => rm(file, { force: true })
  }

  // ---- what a user does, through the first API ----

  /** Submits pictures of 64 × 64; returns the session's id. */
  async submit(input: Record<string, unknown> = {}, more: Record<string, unknown> = {}): Promise<string> {
    const body = { workflow: 'image-generation', input: { prompt: 'a red circle', seed: 7, ...input }, ...more }
    const answer = await this.client.post('/v1/sessions', body)
    if (answer.status !== 202) throw new Error(`submit → ${answer.status} ${answer.text}`)
    return (answer.json as SessionView).id
  }

  /** Sends a submission until it has its 2xx, as a client would: again under the same key when the answer is 503 or none. */
  async submitSurely(key: string, input: Record<string, unknown> = {}, more: Record<string, unknown> = {}): Promise<string> {
    const body = { workflow: 'image-generation', input: { prompt: 'a red circle', seed: 7, ...input }, ...more }
    return eventually(`submission ${key} accepted`, async () => {
      const answer = await this.client.post('/v1/sessions', body, { 'Idempotency-Key': key }).catch(unlessRefused)
      if (answer === undefined || answer.status === 503) return undefined
      if (answer.status !== 202 && answer.status !== 200) throw new Error(`submit → ${answer.status} ${answer.text}`)
      return (answer.json as SessionView).id
    })
  }

  async get(id: string): Promise<SessionView> {
    const answer = await this.client.get(`/v1/sessions/${id}`)
    if (answer.status !== 200) throw new Error(`GET ${id} → ${answer.status} ${answer.text}`)
    return answer.json as SessionView
  }

  /** @returns the status code and the body, whatever it is */
  async control(
    id: string,
    verb: 'pause' | 'resume' | 'cancel' | 'retry',
  ): Promise<{ status: number; json: SessionView & { code?: string } }> {
    const { status, json } = await this.client.post(`/v1/sessions/${id}/${verb}`)
    return { status, json: json as SessionView & { code?: string } }
  }

  async receipt(id: string): Promise<ReceiptView> {
    return (await this.client.get(`/v1/sessions/${id}/receipt`)).json as ReceiptView
  }

  /** The attempts of one kind of step, over all its steps, in order. */
  async attempts(id: string, step: string): Promise<ReceiptView['steps'][number]['attempts']> {
    return (await this.receipt(id)).steps.filter((each) => each.step === step).flatMap((each) => each.attempts)
  }

  /** Waits for a status; another end than the one waited for throws. */
  async until(id: string, status: Status, ms = waitMs): Promise<SessionView> {
    let last: SessionView | undefined
    const look = async (): Promise<SessionView | undefined> => {
      last = await this.get(id).catch((error: NodeJS.ErrnoException) => {
        // The API may be down just now.
        if (error.code === undefined && !error.message.includes('→ 503')) throw error
        return last
      })
      if (last?.status === status) return last
      if (last && ended.has(last.status)) throw new Error(`${id} ${last.status} instead of ${status}: ${JSON.stringify(last.error)}`)
      return undefined
    }
    return eventually(`${id} ${status}`, look, ms).catch((error: Error) => {
      throw new Error(`${error.message}; last seen: ${JSON.stringify(last)}\n${this.lastWords()}`, { cause: error })
    })
  }

  /** SHA-256 of the pictures, when they are all there. */
  async pictures(id: string, ms = waitMs): Promise<string[]> {
    return ((await this.until(id, 'succeeded', ms)).output?.images ?? []).map((image) => image.sha256)
  }

  /** What an undisturbed run gives for the same input: another session of the same farm, once nothing disturbs it. */
  async undisturbed(input: Record<string, unknown> = {}): Promise<string[]> {
    return this.pictures(await this.submit(input))
  }

  // ---- what the test looks at, past the API ----

  async history(id: string): Promise<SessionEvent[]> {
    const texts = await this.eye.lrange(keys.history(id), 0, -1)
    return texts.map((text) => JSON.parse(text) as SessionEvent)
  }

  /** Waits for an event, and for the n-th of its kind. */
  async event(id: string, type: SessionEvent['type'], step?: string, n = 1, ms = waitMs): Promise<SessionEvent> {
    const look = async (): Promise<SessionEvent | undefined> =>
      (await this.history(id)).filter((event) => event.type === type && (step === undefined || event.step === step))[n - 1]
    return eventually(`${type} ${step ?? ''} of ${id}`, look, ms)
  }

  /** Waits until the denoise step that runs has recorded a checkpoint at this call or a later one. */
  async untilCall(id: string, call: number, ms = waitMs): Promise<{ call: number; sha256: string; worker: GroupProcess; stepKey: string }> {
    return eventually(
      `${id} at call ${call}`,
      async () => {
        const started = (await this.history(id)).findLast((event) => event.type === 'step.started' && event.step === 'inference.denoise')
        if (!started?.key) return undefined
        const [checkpoint] = await this.eye.hmget(keys.step(started.key), 'checkpoint')
        if (!checkpoint) return undefined
        const made = JSON.parse(checkpoint) as { call: number; sha256: string }
        return made.call >= call && { ...made, worker: this.worker(started.worker), stepKey: started.key }
      },
      ms,
    )
  }

  /** The process behind a worker's id. */
  worker(id: string | undefined): GroupProcess {
    const found = this.workers.find((worker) => worker.ready === id)
    if (!found) throw new Error(`no worker of this farm is ${id}`)
    return found
  }

  /** The other one of two. */
  other(worker: GroupProcess): GroupProcess {
    const [other] = this.workers.filter((each) => each !== worker && each.isAlive)
    if (!other) throw new Error(`there is no living worker but ${worker.name}`)
    return other
  }

  workersAlive(): GroupProcess[] {
    return this.workers.filter((worker) => worker.isAlive)
  }

  /** Asks a worker's child itself what it holds. */
  async vitals(worker: GroupProcess): Promise<ChildVitals> {
    return (await worker.answer('SIGUSR2'))['vitals'] as ChildVitals
  }

  /** Workers as they publish themselves. */
  async records(): Promise<WorkerRecord[]> {
    return ((await this.client.get('/v1/workers')).json as { workers: WorkerRecord[] }).workers
  }

  lastWords(): string {
    return [...this.apis, ...this.workers].map((each) => `── ${each.name}\n${each.lastWords()}`).join('\n')
  }

  // ---- the end ----

  /** What must never be there, and what must not be there when every session has ended. Empty when all is well. */
  async leftovers(): Promise<string[]> {
    const found: string[] = []
    for (let shard = 0; shard < this.shards; shard++) {
      for (const id of await this.eye.zrange(keys.index(shard, 'all'), '0', '-1')) found.push(...(await this.#sessionLeftovers(id)))
      for (const clock of ['leases', 'timers', 'outbox'] as const) {
        for (const member of await this.eye.zrange(keys[clock](shard), '0', '-1')) found.push(`${clock}: ${member}`)
      }
    }
    for (const key of await this.eye.keys(keys.reserved(0).replace('s0', 's[0-9]*')))
      if (Number(await this.eye.get(key)) !== 0) found.push(`${key}: ${await this.eye.get(key)} bytes for sessions that have ended`)
    // On a cluster: commands that it refused because their keys lie in different slots.
    found.push(...((await this.eye.info('errorstats')).match(/errorstat_CROSSSLOT\S+/g) ?? []))
    for (const kind of ['step', 'inbox', 'scratch']) found.push(...(await this.eye.keys(`darkroom:{s[0-9]*}:${kind}:*`)))
    return found
  }

  /** Whoever has ended by itself has given back what it had reserved; what was killed leaves it to its time. */
  async #reservationsLeft(workers: (string | undefined)[]): Promise<string[]> {
    const found: string[] = []
    for (const key of await this.eye.keys(keys.reservations('*'))) {
      for (const [owner, text] of Object.entries(await this.eye.hgetall(key))) {
        if (workers.includes((JSON.parse(text) as { worker: string }).worker)) found.push(`${key}: ${owner} has not given back ${text}`)
      }
    }
    return found
  }

  async #sessionLeftovers(id: string): Promise<string[]> {
    const found: string[] = []
    const session = await this.eye.hgetall(keys.session(id))
    const open = Object.keys(session)
      .filter((field) => field.startsWith('open:') && field !== 'open:deadline')
      .map((field) => field.slice('open:'.length))
      .toSorted()
    const hasEnded = ended.has(session['status'] as Status)
    const document = JSON.parse(session['snapshot'] ?? '') as Document
    // A cancel or a deadline ends a session from outside its machine: the snapshot then still shows what was open.
    const children = hasEnded
      ? []
      : Object.values(document.effects)
          .map((effect) => effect.suffix)
          .toSorted()
    if (open.join() !== children.join())
      found.push(`session ${id}: open effects ${open.join()}, children of its snapshot ${children.join()}`)
    if (!hasEnded) found.push(`session ${id} is ${session['status']}`)
    const history = await this.history(id)
    const ends = history.filter((event) => ended.has(event.type.replace('session.', '') as Status))
    if (ends.length !== (hasEnded ? 1 : 0)) found.push(`session ${id} has ${ends.length} ends`)
    if (hasEnded && history.at(-1) !== ends[0]) found.push(`session ${id} goes on after its end: ${history.at(-1)?.type}`)
    const completed = history.filter((event) => event.type === 'step.completed').map((event) => event.key)
    for (const key of new Set(completed.filter((key, i) => completed.indexOf(key) !== i)))
      found.push(`step ${key} has more than one result`)
    for (const { sha256 } of (JSON.parse(session['output'] ?? '{}') as { images?: { sha256: string }[] }).images ?? []) {
      if (!existsSync(join(this.artifacts, sha256.slice(0, 2), sha256)))
        found.push(`picture ${sha256} of session ${id} is not in the store`)
      if (!(await this.eye.sismember(keys.references(id), sha256))) found.push(`session ${id} does not name its picture ${sha256}`)
    }
    return found
  }

  /** Stops everything this farm started; says what was not as it should be. */
  async end(): Promise<string[]> {
    const problems: string[] = []
    const attempt = async (act: () => Promise<void>): Promise<void> => act().catch((error: Error) => void problems.push(error.message))
    const alive = this.workersAlive()
    await Promise.all(this.workers.map((worker) => attempt(() => worker.stop(12_000))))
    for (const { name } of alive)
      await attempt(async () => {
        const files = await readdir(join(this.folder, 'attempts', name))
        if (files.length > 0) problems.push(`${name} left attempt folders: ${files.join(', ')}`)
      })
    await Promise.all(this.apis.map((api) => attempt(() => api.stop(8000))))
    await attempt(
      async () => void problems.push(...(await this.leftovers()), ...(await this.#reservationsLeft(alive.map(({ ready }) => ready)))),
    )
    this.eye.disconnect()
    await attempt(async () => this.#proxy?.close())
    await attempt(() => this.redis.stop())
    await attempt(() => rm(this.folder, { recursive: true, force: true }))
    return problems
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const words = this.lastWords()
    const problems = await this.end()
    if (problems.length > 0) throw new Error(`left over at the end of the farm:\n${problems.slice(0, 30).join('\n')}\n${words}`)
  }
}

/** An API that is down just now is no answer; anything else is a fault. */
function unlessRefused(error: NodeJS.ErrnoException): undefined {
  if (error.code === undefined) throw error
}

/** Below the range that outgoing connections take their ports from, so that a killed API finds its port free again. */
async function freePort(): Promise<number> {
  for (;;) {
    const port = 18_000 + Math.floor(Math.random() * 12_000)
    const server = createServer()
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => resolve(true))
    })
    await new Promise((resolve) => server.close(resolve))
    if (isFree) return port
  }
}
