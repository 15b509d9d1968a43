/** An API that is killed while it writes a fork, at each place: asked again under the same key, there is one, whole. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Session } from '../../src/client/index.ts'
import { keys, shardOf } from '../../src/keys.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { anySession } from '../support/points.ts'
import { module } from '../support/scripted.ts'
import { eventually } from '../support/wait.ts'

describe('a fork whose API is killed', () => {
  let farm: Farm
  let parent = ''
  let call = 0
  let open: () => Promise<void>
  beforeAll(async () => {
    farm = await startFarm({ module, dying: 'api', workers: 1, fake: ['--call-ms', '1'] })
    open = await farm.gate(31, 5)
    parent = await farm.submit({ seed: 31 })
    await farm.untilCall(parent, 5)
    await farm.control(parent, 'pause')
    await farm.until(parent, 'paused')
    call = (await farm.client.get(`/v1/sessions/${parent}/states`)).json.states.at(-1).calls[0]
    await open()
  })
  afterAll(async () => {
    await farm.control(parent, 'cancel')
    await farm[Symbol.asyncDispose]()
  })

  it.each(['create.before', 'create.after', 'dispatch.before', 'dispatch.after'] as const)('at %s', async (point) => {
    const [api] = farm.apis
    if (!api) throw new Error('this farm has no API')
    const fork = () => farm.client.post(`/v1/sessions/${parent}/fork`, { from: { call } }, { 'Idempotency-Key': `at-${point}` })
    farm.points.arm(point, anySession)
    // The answer may be out before the process is dead.
    await fork().catch(() => undefined)
    expect((await api.exited).signal).toBe('SIGKILL')
    await api.start()
    const answer = await eventually('an answer', async () => {
      const got = await fork()
      return got.status === 503 ? undefined : got
    })
    const { id } = answer.json as Session
    const pictures = await farm.pictures(id)
    expect((await farm.attempts(id, 'inference.denoise'))[0]?.resumedFrom?.call).toBe(call)
    expect(pictures).toEqual(await farm.undisturbed({ seed: 31 }))
    const made = (await farm.client.get('/v1/sessions?limit=200')).json.sessions as Session[]
    const key = keys.idempotency(shardOf(parent), null, `${parent}:at-${point}`)
    expect(await farm.eye.hget(key, 'session')).toBe(id)
    // No half of another is left: every fork that there is belongs to one of the keys.
    const forks = made.filter(({ forkOf }) => forkOf?.session === parent).map((each) => each.id)
    const known = await Promise.all(
      (await farm.eye.keys(keys.idempotency(shardOf(parent), null, `${parent}:at-*`))).map(async (each) =>
        String(await farm.eye.hget(each, 'session')),
      ),
    )
    expect(forks.toSorted()).toEqual(known.toSorted())
  })
})
