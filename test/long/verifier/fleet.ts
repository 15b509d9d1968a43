/**
 * The farm under test: real APIs, workers and Redis, kept running as a supervisor and an operator would, and broken as
 * the plan says.
 */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { productTimes } from '../../../src/engine/times.ts'
import { keys } from '../../../src/keys.ts'
import type { WorkerRecord } from '../../../src/farm/record.ts'
import { startFarm, type Farm } from '../../support/farm.ts'
import { eventually, sleep } from '../../support/wait.ts'
import { hasSmallDisks } from '../../support/small-disk.ts'
import { noPidNamespaces, signalIfThere, type GroupProcess } from '../../support/process.ts'
import { either, sometimes, startProxy, type FaultProxy, type Rule } from '../../support/proxy.ts'
import { noWallClock } from '../../support/wall-clock.ts'
import { clockStepMs, type FaultKind, type Injected, type PlannedFault } from './faults.ts'
import { stream } from './program.ts'

/** Share of the commands that a broken line hits. */
const lostShare = 0.1
const cutShare = 0.05
/** Parents and children live on different ones. */
const shards = 3
/** How long a fault waits for its victim to have work. */
const aimMs = 2500

/** A process that is started again whenever it is not there. */
class Kept {
  readonly process: GroupProcess
  /** The line between it and Redis. */
  readonly proxy: FaultProxy
  isUp = true
  /** Times that it ended by itself. */
  ownEnds = 0
  readonly #rules = new Set<Rule>()
  #isKilled = false
  #downUntil = 0
  #isOver = false
  #keeping: Promise<void> = Promise.resolve()

  constructor(process: GroupProcess, proxy: FaultProxy) {
    this.process = process
    this.proxy = proxy
  }

  /** `isFit` is asked every two seconds: an operator restarts a worker that has lost trust in itself. */
  keep(isFit: () => Promise<boolean>): void {
    this.#keeping = this.#keep(isFit)
  }

  async #keep(isFit: () => Promise<boolean>): Promise<void> {
    let lookedAt = performance.now()
    while (!this.#isOver) {
      await sleep(50)
      if (this.process.isAlive) {
        if (performance.now() - lookedAt < 2000) continue
        lookedAt = performance.now()
        if (!(await isFit())) await this.process.stop(15_000).catch(() => undefined)
        continue
      }
      this.isUp = false
      if (!this.#isKilled) this.ownEnds++
      this.#isKilled = false
      await sleep(Math.max(200, this.#downUntil - performance.now()))
      // It may start just while Redis is away, and give up.
      await this.process.start().then(
        () => (this.isUp = true),
        () => undefined,
      )
    }
  }

  /** It comes back after so long; `isApart`: in a PID namespace of its own. */
  async kill(downMs: number, isApart = false): Promise<void> {
    this.isUp = false
    this.process.isApart = isApart
    this.#isKilled = true
    this.#downUntil = performance.now() + downMs
    await this.process.kill()
  }

  /** Breaks its line by one more rule until the returned function is called. */
  break(rule: Rule): () => void {
    this.#rules.add(rule)
    this.proxy.rule = either(...this.#rules)
    return () => {
      this.#rules.delete(rule)
      this.proxy.rule = this.#rules.size > 0 ? either(...this.#rules) : undefined
    }
  }

  async end(): Promise<void> {
    this.#isOver = true
    await this.#keeping
  }
}

/** Kinds of faults that this machine does not allow, with the reason. */
export const lacking: ReadonlyMap<FaultKind, string> = new Map(
  Object.entries({
    'redis.clock': noWallClock,
    'disk.full': hasSmallDisks ? undefined : '`unshare` makes no mount namespace here',
    'worker.apart': noPidNamespaces,
  }).flatMap(([kind, why]) => (why === undefined ? [] : [[kind as FaultKind, why]])),
)

/** Of each disk: more than a run writes, and little enough to be filled at once. */
const diskBytes = 256 * 1024 * 1024
/** Folder of all workers' attempt files: on one host they share it. */
const attempts = 'all'

export interface FleetOptions {
  seed: number
  workers: number
  apis: number
  module: string
}

export class Fleet implements AsyncDisposable {
  readonly farm: Farm
  readonly apis: Kept[] = []
  readonly workers: Kept[] = []
  readonly injected: Injected[] = []
  /** What went wrong with a fault itself, such as processes that a killed one left behind. */
  readonly problems: string[] = []
  readonly #seed: number
  #redis: Promise<void> = Promise.resolve()
  readonly #under: Promise<void>[] = []
  #ended: Promise<string[]> | undefined

  private constructor(farm: Farm, seed: number) {
    this.farm = farm
    this.#seed = seed
  }

  static async start({ seed, workers, apis, module }: FleetOptions): Promise<Fleet> {
    const farm = await startFarm({
      apis,
      workers: 0,
      times: productTimes,
      proxied: true,
      module,
      shards,
      redis: { clock: !lacking.has('redis.clock'), ...(!lacking.has('disk.full') && { diskBytes }) },
      ...(!lacking.has('disk.full') && { disks: { data: diskBytes, attempts: diskBytes } }),
      checkpointCalls: 5,
      fake: ['--call-ms', '60'],
      // A child that is stopped is replaced while the run lasts.
      stall: { heartbeatMs: 4000, termMs: 1000 },
      settings: { DARKROOM_LOG: 'warn', DARKROOM_MIN_FREE_DISK: '1mb' },
    })
    const fleet = new Fleet(farm, seed)
    try {
      for (const api of farm.apis) fleet.apis.push(new Kept(api, farm.proxy))
      for (let i = 0; i < workers; i++) {
        const proxy = await startProxy(farm.redis.url)
        fleet.workers.push(new Kept(await farm.addWorker({ attempts, env: { REDIS_URL: proxy.url } }), proxy))
      }
    } catch (error) {
      await fleet[Symbol.asyncDispose]()
      throw error
    }
    for (const api of fleet.apis) api.keep(() => Promise.resolve(true))
    for (const worker of fleet.workers) worker.keep(async () => (await fleet.record(worker))?.status !== 'suspect')
    return fleet
  }

  /** What a worker publishes about itself; undefined while it is not heard. */
  async record(worker: Kept): Promise<WorkerRecord | undefined> {
    const text = await this.farm.eye.get(keys.worker(worker.process.ready))
    return text === null ? undefined : (JSON.parse(text) as WorkerRecord)
  }

  get ownEnds(): number {
    return [...this.apis, ...this.workers].reduce((sum, { ownEnds }) => sum + ownEnds, 0)
  }

  // ---- faults ----

  /** Does one fault; returns when it has begun. One whose victim is down just now is left out. */
  inject(planned: PlannedFault, i: number): void {
    const act = this.#inject(planned, i).catch((error: Error) => void this.problems.push(`${planned.kind}: ${error.message}`))
    this.#under.push(act)
  }

  /** Resolves when no fault lasts any more and every process is there again. */
  async calm(): Promise<void> {
    await Promise.all(this.#under)
    await eventually(
      'every process started again',
      () => Promise.resolve([...this.apis, ...this.workers].every(({ isUp }) => isUp)),
      120_000,
    )
  }

  async #inject(planned: PlannedFault, i: number): Promise<void> {
    const { kind, victim, forMs } = planned
    const note = (target: string): Injected => {
      const fault: Injected = { ...planned, at: Date.now(), target, commands: 0 }
      this.injected.push(fault)
      return fault
    }
    const [group] = kind.split('.')
    const kept = group === 'worker' || group === 'child' ? this.workers[victim] : group === 'api' ? this.apis[victim] : undefined
    if (kept && group !== 'api') await this.#untilBusy(kept, group === 'child' ? 'inference.' : '')
    if (kept && !kept.isUp) return
    switch (kind) {
      case 'worker.kill':
      case 'api.kill':
        note(nameOf(kept))
        return kept?.kill(forMs)
      case 'worker.stop':
      case 'api.stop':
        note(nameOf(kept))
        return kept && freeze(kept.process.pid, forMs)
      case 'worker.cut': {
        note(nameOf(kept))
        const mend = kept?.break(() => 'cut')
        await sleep(forMs)
        return mend?.()
      }
      case 'child.kill':
      case 'child.stop': {
        const pid = kept && (await this.record(kept))?.childPid
        // In a namespace of its own it has another number here.
        if (!pid || kept.process.isApart) return
        note(nameOf(kept))
        return signalIfThere(pid, kind === 'child.kill' ? 'SIGKILL' : 'SIGSTOP')
      }
      case 'redis.kill':
      case 'redis.stop':
        // One after another: a Redis that is away cannot be broken.
        this.#redis = this.#redis.then(async () => {
          note('redis')
          if (kind === 'redis.stop') return freeze(this.farm.redis.pid, forMs)
          await this.farm.redis.kill()
          await sleep(forMs)
          await this.farm.redis.restart()
        })
        return this.#redis
      case 'redis.clock':
        this.#redis = this.#redis.then(async () => {
          note('redis')
          await this.farm.redis.setClock(victim % 2 === 0 ? -clockStepMs : clockStepMs)
          await sleep(forMs)
          await this.farm.redis.setClock(0)
        })
        return this.#redis
      case 'disk.full': {
        const { redis, disks } = this.farm
        // Redis is not killed meanwhile: it would not start.
        this.#redis = this.#redis.then(async () => {
          note('disks')
          await Promise.all([redis.disks?.fill(redis.folder), disks.data.fill()])
          await sleep(forMs)
          await Promise.all([redis.disks?.free(redis.folder), disks.data.free()])
        })
        return this.#redis
      }
      case 'worker.apart': {
        if (!kept) return
        const dead = kept.process.ready
        await kept.kill(0, true)
        await eventually('it is back, apart', () => Promise.resolve(kept.isUp && kept.process.ready !== dead), 120_000)
        note(nameOf(kept))
        await sleep(forMs)
        return kept.kill(0)
      }
      case 'line.lose':
      case 'line.cut': {
        const fault = note('line')
        const draw = stream(this.#seed, 'line', i)
        const rule = kind === 'line.lose' ? sometimes(draw, lostShare, 'lose', ({ isWrite }) => isWrite) : sometimes(draw, cutShare, 'cut')
        // The APIs share one line.
        const lines = [...new Map([...this.apis, ...this.workers].map((each) => [each.proxy, each])).values()]
        const before = lines.map(({ proxy }) => proxy.hits())
        const mend = lines.map((each) => each.break(rule))
        await sleep(forMs)
        for (const each of mend) each()
        fault.commands = lines.reduce((sum, { proxy }, n) => sum + proxy.hits() - (before[n] ?? 0), 0)
        return
      }
    }
  }

  /** A fault that meets nobody at work shows nothing: it waits a little for a step of that kind on its victim. */
  async #untilBusy({ process }: Kept, step: string): Promise<void> {
    const { eye } = this.farm
    for (const until = performance.now() + aimMs; performance.now() < until; await sleep(20)) {
      const leased = (await Promise.all(Array.from({ length: shards }, (_, shard) => eye.zrange(keys.leases(shard), '0', '-1')))).flat()
      const held = await Promise.all(leased.map((key) => eye.hmget(keys.step(key), 'worker', 'name')))
      if (held.some(([worker, name]) => worker === process.ready && name?.startsWith(step))) return
    }
  }

  /** Stops the workers in order, while APIs and Redis go on: what they leave can be looked at. */
  async retire(): Promise<string[]> {
    await Promise.all(this.workers.map((worker) => worker.end()))
    const stops = await Promise.allSettled(this.workers.map(({ process }) => process.stop(15_000)))
    const problems = stops.flatMap((stop) => (stop.status === 'rejected' ? [(stop.reason as Error).message] : []))
    const files = await readdir(this.farm.seen(join(this.farm.folder, 'attempts', attempts)))
    if (files.length > 0) problems.push(`workers left attempt folders: ${files.join(', ')}`)
    return problems
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end()
  }

  /** Stops everything. Returns what was not as it should be. */
  end(): Promise<string[]> {
    return (this.#ended ??= this.#end())
  }

  async #end(): Promise<string[]> {
    await Promise.all([...this.apis, ...this.workers].map((each) => each.end()))
    const problems = await this.farm.end()
    await Promise.all(this.workers.map(({ proxy }) => proxy.close()))
    return problems
  }
}

/** A worker's id changes with each start; an API keeps its name. */
const nameOf = (kept: Kept | undefined): string => (kept?.process.name.startsWith('api') ? kept.process.name : (kept?.process.ready ?? ''))

async function freeze(pid: number, ms: number): Promise<void> {
  signalIfThere(pid, 'SIGSTOP')
  await sleep(ms)
  signalIfThere(pid, 'SIGCONT')
}
