/** Disturbed and undisturbed runs of one request, on a farm with the product's own Python child. */
import { expect } from 'vitest'
import type { Farm } from './farm.ts'

const drawMs = 180_000

/**
 * Draws the request twice, the second time with its worker killed by SIGKILL once a checkpoint at call ≥ 10 was
 * recorded. Expects that another worker went on from there, and equal pictures. The farm has two workers before and
 * after.
 */
export async function survivesKill(farm: Farm, input: Record<string, unknown>): Promise<void> {
  const undisturbed = await farm.pictures(await farm.submit(input), drawMs)
  const id = await farm.submit(input)
  const { worker } = await farm.untilCall(id, 10, drawMs)
  await worker.kill()
  const killed = await farm.pictures(id, drawMs)
  const [lost, finished] = await farm.attempts(id, 'inference.denoise')
  expect(lost).toMatchObject({ worker: worker.ready, end: 'lost' })
  expect(finished).toMatchObject({ worker: farm.other(worker).ready, end: 'completed' })
  expect(finished?.resumedFrom?.call).toBeGreaterThanOrEqual(10)
  expect(finished?.stats).toMatchObject({ resumedFrom: finished?.resumedFrom?.call, checkpointRefused: null })
  expect(killed).toEqual(undisturbed)
  await farm.addWorker()
}

/** The same, with the worker asked to end (SIGTERM) instead: it hands its step over. */
export async function survivesDrain(farm: Farm, input: Record<string, unknown>): Promise<void> {
  const undisturbed = await farm.pictures(await farm.submit(input), drawMs)
  const id = await farm.submit(input)
  const { worker } = await farm.untilCall(id, 5, drawMs)
  await worker.stop(20_000)
  const drained = await farm.pictures(id, drawMs)
  const [released, finished] = await farm.attempts(id, 'inference.denoise')
  expect(released).toMatchObject({ worker: worker.ready, end: 'released' })
  expect(finished?.resumedFrom?.call).toBeGreaterThanOrEqual(5)
  expect(drained).toEqual(undisturbed)
  await farm.addWorker()
}
