/**
 * Everything is killed at random moments while sessions run; through HTTP alone, each must end as if nothing had happened.
 * `CHAOS_SEED` repeats the choices of a run (not its timing); `CHAOS_SESSIONS` and `CHAOS_KILLS` make it longer.
 */
import { expect, it } from 'vitest'
import { keys } from '../../src/keys.ts'
import { eventually, sleep, startFarm, type Farm } from '../support/farm.ts'
import type { GroupProcess } from '../support/process.ts'

const seed = Number(process.env['CHAOS_SEED'] ?? Math.floor(Math.random() * 1e9))
const sessions = Number(process.env['CHAOS_SESSIONS'] ?? 100)
/** A run with fewer kills that hit live work shows nothing. */
const leastHits = 30
/** After so many the farm is left alone. */
const mostHits = Number(process.env['CHAOS_KILLS'] ?? 40)
/** As many different requests; each is sent again and again. */
const requests = 10

/** Mulberry32: small, and the same everywhere. */
function chance(state: number): () => number {
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

interface Kills {
  worker: number
  api: number
  redis: number
  /** Those of them that hit live work. */
  hits: number
}

/** Kills one thing after another, and starts it again as a supervisor would, until told to stop. */
async function disturb(farm: Farm, draw: () => number, isOver: () => boolean): Promise<Kills> {
  const kills: Kills = { worker: 0, api: 0, redis: 0, hits: 0 }
  const starting = new Set<GroupProcess>()
  const restarts: Promise<void>[] = []
  const restart = async (process: GroupProcess, afterMs: number): Promise<void> => {
    starting.add(process)
    await sleep(afterMs)
    // It may start just while Redis is away, and give up.
    await eventually(`${process.name} started`, () =>
      process.start().then(
        () => true,
        () => false,
      ),
    )
    starting.delete(process)
  }
  const leased = async (): Promise<(string | null)[]> => {
    const members = await farm.members(keys.leases)
    return Promise.all(members.map((member) => farm.eye.hget(keys.step(member), 'worker')))
  }
  while (!isOver() && kills.hits < mostHits) {
    await sleep(300 + draw() * 700)
    const [what, which, afterMs] = [draw(), draw(), draw() * 300]
    if (what < 0.15) {
      if ((await leased()).length > 0) kills.hits++
      await farm.redis.kill()
      kills.redis++
      await sleep(afterMs)
      await farm.redis.restart()
      continue
    }
    const kind = what < 0.3 ? 'api' : 'worker'
    const candidates = (kind === 'api' ? farm.apis : farm.workers).filter((process) => !starting.has(process))
    const victim = candidates[Math.floor(which * candidates.length)]
    if (!victim) continue
    // An API is at work while its clients ask it, which they always do.
    if (kind === 'api' ? !isOver() : (await leased()).includes(victim.ready)) kills.hits++
    kills[kind]++
    await victim.kill()
    restarts.push(restart(victim, afterMs))
  }
  await Promise.all(restarts)
  return kills
}

it(
  `${sessions} sessions on 3 workers, with workers, APIs and Redis killed at random: each ends once, with the right pictures`,
  { timeout: 300_000 },
  async () => {
    const say = (text: string): void => void process.stdout.write(`chaos with CHAOS_SEED=${seed}: ${text}\n`)
    say(`${sessions} sessions`)
    await using farm = await startFarm({ workers: 3, apis: 2, fake: ['--call-ms', '25'] })
    const input = (i: number): Record<string, unknown> => ({ seed: i % requests, steps: 40 })
    let isOver = false
    const startedAt = performance.now()
    const kills = disturb(farm, chance(seed), () => isOver)
    const ids = await Promise.all(
      Array.from({ length: sessions }, async (_, i) => {
        await sleep(i * 100)
        const id = await farm.submitSurely(`session-${i}`, input(i))
        await farm.until(id, 'succeeded', 200_000)
        return id
      }),
    )
    isOver = true
    const { hits, ...each } = await kills
    say(`${hits} kills hit live work ${JSON.stringify(each)}, ${Math.round((performance.now() - startedAt) / 1000)} s`)
    expect(hits, 'void: too few kills hit live work').toBeGreaterThanOrEqual(leastHits)

    expect(new Set(ids)).toHaveProperty('size', sessions)
    const { json } = await farm.client.get(`/v1/sessions?limit=100`)
    expect(json.sessions).toHaveLength(Math.min(100, sessions))
    const undisturbed = await Promise.all(Array.from({ length: requests }, (_, i) => farm.undisturbed(input(i))))
    for (const [i, id] of ids.entries()) {
      expect(await farm.pictures(id)).toEqual(undisturbed[i % requests])
      for (const { attempts } of (await farm.receipt(id)).steps) expect(attempts.filter(({ end }) => end === 'completed')).toHaveLength(1)
    }
  },
)
