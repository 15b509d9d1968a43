/** What `standard` and `strict` promise, as far as a killed process can show it: nothing that had its 2xx is gone. */
import { describe, it } from 'vitest'
import { keys } from '../../src/keys.ts'
import { run } from '../support/command.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'
import { chance } from '../support/proxy.ts'

const seed = Number(process.env['FAULT_SEED'] ?? Math.floor(Math.random() * 1e9))
const clients = 8
const rounds = 3

/**
 * Clients submit one after another, and Redis is killed as soon as so many have their 2xx; what each was told, by key.
 */
async function submitUntilKilled(farm: Farm, round: number, enough: number): Promise<Map<string, string>> {
  const accepted = new Map<string, string>()
  let killed: Promise<void> | undefined
  const client = async (name: string): Promise<void> => {
    for (let i = 0; killed === undefined; i++) {
      const key = `${round}-${name}-${i}`
      const { status, json } = await farm.client.post(
        '/v1/sessions',
        { workflow: 'image-generation', input: { prompt: 'x', steps: 1, seed: 7 } },
        { 'Idempotency-Key': key },
      )
      if (status === 202) accepted.set(key, json.id as string)
      if (accepted.size >= enough) killed ??= farm.redis.kill()
    }
  }
  await Promise.all(Array.from({ length: clients }, (_, i) => client(`c${i}`)))
  await killed
  return accepted
}

describe.concurrent('durability', { timeout: 120_000 }, () => {
  for (const durability of ['standard', 'strict'] as const) {
    it(`${durability}: Redis killed in the middle of submissions, over and over, has every session that got its 2xx`, async ({
      expect,
    }) => {
      await using farm = await startFarm({ workers: 0, redis: { durability } })
      const draw = chance(seed)
      const accepted = new Map<string, string>()
      for (let round = 0; round < rounds; round++) {
        for (const [key, id] of await submitUntilKilled(farm, round, 5 + Math.floor(10 * draw()))) accepted.set(key, id)
        await farm.redis.restart()
        const fsync = await farm.eye.config('GET', 'appendfsync')
        expect(Object.values(fsync as object).at(-1)).toBe(durability === 'strict' ? 'always' : 'no')
      }
      process.stdout.write(
        `durability with FAULT_SEED=${seed}: ${accepted.size} accepted under ${durability}, Redis killed ${rounds} times\n`,
      )
      expect(accepted.size).toBeGreaterThanOrEqual(5 * rounds)
      for (const [key, id] of accepted) {
        const session = await eventually(`${key} is there`, async () => {
          const answer = await farm.client.get(`/v1/sessions/${id}`)
          return answer.status !== 503 && answer
        })
        expect([session.status, session.json.id]).toEqual([200, id])
      }
      await farm.addWorker()
      // Those too of which nobody knew.
      for (const id of await farm.members((shard) => keys.index(shard, 'all'))) await farm.until(id, 'succeeded')
    })
  }

  it('strict is refused with a Redis of your own that does not sync each write, and says which setting', async ({ expect }) => {
    await using farm = await startFarm({ workers: 0, apis: 0 })
    const env = { REDIS_URL: farm.redis.url, DARKROOM_DATA: farm.folder, DARKROOM_PORT: '0', DARKROOM_DURABILITY: 'strict' }
    const { code, stderr } = await run(['api'], env)
    expect(code).toBe(1)
    expect(stderr).toContain('redis.unsafe')
    expect(stderr).toContain('DARKROOM_DURABILITY is strict, but appendfsync is no')
  })
})
