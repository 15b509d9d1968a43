/** Disks without room: nothing accepted is lost, no session fails of it, and all goes on when there is room again. */
import { readdir } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startFarm, type Farm } from '../support/farm.ts'
import type { GroupProcess } from '../support/process.ts'
import { hasSmallDisks } from '../support/small-disk.ts'
import { eventually } from '../support/wait.ts'

const MiB = 1 << 20

const steps = 12
const pictureOf = (seed: number) => ({ workflow: 'image-generation', input: { prompt: 'a red circle', seed, steps } })

/** Of the tries of a step that failed for now, their codes. */
const codesOf = async (farm: Farm, id: string): Promise<unknown[]> =>
  (await farm.history(id)).flatMap((event) => (event.type === 'step.retrying' ? [(event['error'] as { code?: unknown }).code] : []))

describe.skipIf(!hasSmallDisks)('a full disk', { timeout: 120_000 }, () => {
  let farm: Farm
  beforeAll(async () => {
    const settings = { DARKROOM_MIN_FREE_DISK: '1mb' }
    farm = await startFarm({ workers: 2, checkpointCalls: 3, disks: { data: 64 * MiB, attempts: 64 * MiB }, settings })
  })
  afterAll(() => farm[Symbol.asyncDispose]())

  const parts = async (): Promise<string[]> => {
    const files = await readdir(farm.disks.data.seen('artifacts'), { recursive: true })
    return files.filter((file) => file.endsWith('.part'))
  }

  /** Held between two checkpoints, which are made every three calls. */
  const held = async (seed: number): Promise<{ id: string; open: () => Promise<void>; worker: GroupProcess }> => {
    const open = await farm.gate(seed, 4)
    const id = await farm.submitSurely(`held-${seed}`, { seed, steps })
    const { worker } = await farm.untilCall(id, 3)
    return { id, open, worker }
  }
  const undisturbed = (seed: number): Promise<string[]> => farm.undisturbed({ seed, steps })
  const resumedAt = async (id: string): Promise<number[]> =>
    (await farm.attempts(id, 'inference.denoise')).map(({ resumedFrom }) => resumedFrom?.call ?? 0)

  it('of the data: a session that is paused on it is paused, and goes on from its last good checkpoint', async () => {
    const { data } = farm.disks
    const { id, open } = await held(1)
    await data.fill()
    await farm.control(id, 'pause')
    await open()
    expect((await farm.until(id, 'paused')).error).toBeNull()
    expect(await parts()).toEqual([])
    await farm.control(id, 'resume')
    await eventually('a try without room', async () => (await codesOf(farm, id)).includes('disk.full'))
    await data.free()
    expect(await farm.pictures(id)).toEqual(await undisturbed(1))
    expect(await resumedAt(id)).toContain(3)
  })

  it('of the data: submits are refused with what is free and what is needed, reads are answered', async () => {
    const { data } = farm.disks
    await data.fill()
    const refused = await eventually('refused', async () => {
      const picture = await farm.client.post('/v1/sessions', pictureOf(2))
      if (picture.status === 202) await farm.control(picture.json.id as string, 'cancel')
      return picture.status !== 202 && picture
    })
    expect(refused.json).toMatchObject({ status: 503, code: 'disk.full', class: 'resource' })
    expect(refused.json.detail).toMatch(/data\/artifacts has \d+ bytes free; .*DARKROOM_MIN_FREE_DISK.* needs 1048576/)
    expect(refused.headers['retry-after']).toBe('60')
    expect((await farm.client.get('/v1/sessions')).status).toBe(200)
    const ready = await farm.client.get('/v1/ready')
    expect(ready.json).toMatchObject({ status: 503, reasons: [expect.stringMatching(/the artifact store takes no files.*ENOSPC/)] })
    await data.free()
    await farm.until(await farm.submitSurely('there-is-room', { seed: 2, steps: 2 }), 'succeeded')
  })

  it('of the data, while sessions run: they wait, none fails, and each draws what it would have drawn', async () => {
    const running = await Promise.all([10, 11].map(held))
    await farm.disks.data.fill()
    for (const { open } of running) await open()
    for (const { id } of running) {
      await eventually(`${id} tried without room`, async () => (await codesOf(farm, id)).length >= 2)
      expect(new Set(await codesOf(farm, id))).toEqual(new Set(['disk.full']))
      expect((await farm.get(id)).status).toBe('running')
    }
    expect(await parts()).toEqual([])
    await farm.disks.data.free()
    for (const [i, { id }] of running.entries()) expect(await farm.pictures(id)).toEqual(await undisturbed(10 + i))
  })

  it('of the attempt files: it is found before a call is drawn', async () => {
    const { attempts } = farm.disks
    await attempts.fill()
    const id = await farm.submitSurely('no-room-for-attempts', { seed: 20, steps })
    await eventually('two tries', async () => (await codesOf(farm, id)).length >= 2)
    const history = await farm.history(id)
    expect(history.filter((event) => event.type === 'step.completed')).toEqual([])
    const [error] = history.flatMap((event) => (event.type === 'step.retrying' ? [event['error']] : []))
    expect(error).toMatchObject({ code: 'disk.full', class: 'resource' })
    expect((error as { message: string }).message).toMatch(/attempts.* has \d+ bytes free; inference.encode of session .* needs \d+/)
    await attempts.free()
    expect(await farm.pictures(id)).toEqual(await undisturbed(20))
  })

  it('of the data, under a drain: the worker ends in order, and the session goes on from its last good checkpoint', async () => {
    const { id, open, worker } = await held(30)
    await farm.disks.data.fill()
    const stopped = worker.stop(20_000)
    await eventually('it drains', async () => (await farm.records()).some(({ status }) => status === 'draining'))
    await open()
    await stopped
    expect((await farm.get(id)).status).toBe('running')
    await farm.disks.data.free()
    expect(await farm.pictures(id)).toEqual(await undisturbed(30))
    expect((await farm.attempts(id, 'inference.denoise')).map(({ end }) => end)).toContain('released')
    expect(await resumedAt(id)).toContain(3)
    expect(await parts()).toEqual([])
  })
})

describe.skipIf(!hasSmallDisks)('a full disk of Redis', { timeout: 120_000 }, () => {
  it('whatever had its 2xx is there after a kill; the rest is refused as retryable, and the farm is not ready meanwhile', async () => {
    await using farm = await startFarm({ workers: 0, redis: { diskBytes: 8 * MiB, cluster: false }, shards: 1 })
    const { disks, folder } = farm.redis
    if (!disks) throw new Error('this Redis has no disk of its own')
    const accepted = new Map<string, string>()
    const submit = async (key: string): Promise<{ status: number; code?: string }> => {
      const { status, json } = await farm.client.post('/v1/sessions', pictureOf(7), { 'Idempotency-Key': key })
      if (status === 202) accepted.set(key, json.id as string)
      return { status, ...(status !== 202 && { code: json.code as string }) }
    }
    const client = async (name: string): Promise<void> => {
      for (let i = 0, refused = 0; refused < 5; i++) {
        const { status, code } = await submit(`${name}-${i}`)
        if (status === 202) continue
        expect([status, code]).toEqual([503, 'redis.unavailable'])
        refused++
      }
    }
    const clients = Promise.all(['a', 'b', 'c', 'd', 'e', 'f'].map(client))
    await eventually('some accepted', async () => accepted.size > 20)
    await disks.fill(folder)
    await clients
    const ready = await farm.client.get('/v1/ready')
    expect(ready.json).toMatchObject({
      status: 503,
      code: 'api.not_ready',
      reasons: expect.arrayContaining([expect.stringMatching(/MISCONF/)]),
    })
    for (const verb of ['pause', 'cancel'])
      expect((await farm.client.post(`/v1/sessions/${[...accepted.values()][0]}/${verb}`)).json).toMatchObject({
        status: 503,
        code: 'redis.unavailable',
        remedy: expect.stringMatching(/free space on its disk/),
      })
    await farm.redis.kill()
    await disks.free(folder)
    await farm.redis.restart()
    for (const [key, id] of accepted) {
      const session = await eventually(`${key} is there`, async () => {
        const answer = await farm.client.get(`/v1/sessions/${id}`)
        return answer.status !== 503 && answer
      })
      expect([key, session.status]).toEqual([key, 200])
    }
    const again = async (): Promise<string> => (await farm.client.get('/v1/ready')).text
    await eventually('Redis takes writes again', async () => !(await again()).includes('MISCONF'))
    for (const id of (await farm.client.get('/v1/sessions?limit=200&status=queued')).json.sessions.map(
      (session: { id: string }) => session.id,
    ))
      await farm.control(id, 'cancel')
  })
})
