/**
 * The farm's time: what durations are reckoned by, kept in Redis for each hash tag (`redis/clock.lua`). Redis' own TIME
 * is the wall clock of a machine, and somebody may set it.
 *
 * | the wall clock | what happens |
 * | --- | --- |
 * | goes on | the farm's time goes with it |
 * | is set back | scripts stay where the time was last; the next keeper goes on from there |
 * | is set forward | scripts go half a second ahead at most; the next keeper knows by its own monotonic clock that no such time has passed, and goes on from where it was |
 * | went on while nobody kept the time | the first keeper sees it stand still for a second, and then believes the wall clock |
 *
 * A keeper's evidence never turns the time back, and the others write it on meanwhile: one whose machine stood still
 * changes nothing.
 */
import { uptime } from 'node:os'
import type { Logger } from './log.ts'
import { runScript, type Redis } from './redis.ts'
import { Ticker } from './ticker.ts'

/** How often each process writes the time on, ms. */
const keepMs = 250
/** How long a clock must have stood still before a process that has just started believes that nobody kept it, ms. */
const standMs = 1000

/** Both monotonic clocks of this machine: one stops while it sleeps, the other may be coarse. */
interface Moment {
  awake: number
  up: number
}
const moment = (): Moment => ({ awake: performance.now(), up: uptime() * 1000 })

/** Milliseconds since then, by the clock that counted more. */
function since({ awake, up }: Moment): number {
  const now = moment()
  return Math.ceil(Math.max(now.awake - awake, now.up - up))
}

/** What a process knows of one clock: the time it was told, or where it saw it stand. */
interface Known {
  told?: number
  last?: number
  /** When it asked. */
  at: Moment
}

/** Keeps clocks, one after another, until it is stopped. */
export class ClockKeeper {
  readonly #redis: Redis
  readonly #known = new Map<string, Known>()
  readonly #ticker: Ticker

  constructor(redis: Redis, clocks: readonly string[], log: Logger) {
    this.#redis = redis
    this.#ticker = new Ticker(
      keepMs,
      async () => void (await Promise.all(clocks.map((clock) => this.keep(clock)))),
      (error) => log.debug({ err: error }, 'the time was not written on'),
    )
  }

  start(): void {
    this.#ticker.start()
  }

  stop(): Promise<void> {
    return this.#ticker.stop()
  }

  /** Writes one clock on. */
  async keep(clock: string): Promise<void> {
    const known = this.#known.get(clock)
    const ask = async (told: number | undefined, again: number | undefined): Promise<Known & { isLeap: boolean }> => {
      const at = moment()
      const passed = told === undefined || !known ? 0 : since(known.at)
      const [is, time] = await runScript(this.#redis, 'keepClock', clock, [told ?? '', passed, again ?? ''])
      return { isLeap: is === 'leapt', at, ...(is === 'leapt' ? { last: Number(time) } : { told: Number(time) }) }
    }
    if (known?.told !== undefined) {
      const answer = await ask(known.told, undefined)
      this.#known.set(clock, answer.isLeap ? await ask(known.told, answer.last) : answer)
      return
    }
    const hasStood = known?.last !== undefined && since(known.at) >= standMs
    const answer = await ask(undefined, hasStood ? known.last : undefined)
    // Where it still stands, it counts from when it was first seen there.
    if (!answer.isLeap || answer.last !== known?.last) this.#known.set(clock, answer)
  }
}

/** The time of a clock, and the wall clock's, ms. */
export async function tellTime(redis: Redis, clock: string): Promise<{ now: number; wall: number }> {
  const [, now, wall] = await runScript(redis, 'tellTime', clock, [])
  return { now: Number(now), wall: Number(wall) }
}

/** Whether it is this process' turn, which then is nobody else's for `ms`. */
export async function takeTurn(redis: Redis, turn: string, ms: number): Promise<boolean> {
  return (await runScript(redis, 'takeTurn', turn, [ms]))[0] === 'ok'
}
