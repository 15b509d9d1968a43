import { expect, it } from 'vitest'
import { startFarm, type Farm } from '../support/farm.ts'

interface Frame {
  id: string | undefined
  event: string
  fraction: number | undefined
}

/** Follows a session to its end as a browser would: on a broken stream it comes back with the last id it saw. */
async function follow(farm: Farm, id: string, frames: Frame[]): Promise<void> {
  for (;;) {
    const last = frames.findLast((frame) => frame.id !== undefined)?.id
    const headers: Record<string, string> = last === undefined ? {} : { 'Last-Event-ID': last }
    try {
      for await (const { id: n, event, data } of farm.client.events(`/v1/sessions/${id}/events`, { headers }))
        frames.push({ id: n, event, fraction: event === 'progress' ? data.fraction : undefined })
      return
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      if (code === undefined && message !== 'aborted' && !message.includes('→ 503')) throw error
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
}

it('progress never falls and no event is lost or doubled, over the death of a worker, an API and Redis', { timeout: 120_000 }, async () => {
  await using farm = await startFarm({ workers: 2, fake: ['--call-ms', '100'], checkpointCalls: 5 })
  const open = await farm.gate(7, 10)
  const id = await farm.submit({ count: 2, steps: 40 })
  const frames: Frame[] = []
  const following = follow(farm, id, frames)
  const { worker } = await farm.untilCall(id, 10)
  await worker.kill()
  await open()
  await farm.event(id, 'step.started', 'inference.denoise', 2)
  const [api] = farm.apis
  await api?.kill()
  await api?.start()
  await farm.redis.kill()
  await farm.redis.restart()
  await farm.pictures(id)
  await following
  const history = await farm.history(id)
  expect(frames.filter((frame) => frame.id !== undefined).map((frame) => [frame.id, frame.event])).toEqual(
    history.map((event, i) => [String(i + 1), event.type]),
  )
  const fractions = frames.flatMap((frame) => frame.fraction ?? [])
  expect(fractions.length).toBeGreaterThan(10)
  expect(fractions).toEqual(fractions.toSorted((a, b) => a - b))
  // The step that was taken over began at an earlier call than the last one told.
  expect(history.filter((event) => event.type === 'step.recovered')).toHaveLength(1)
})
