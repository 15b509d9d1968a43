/** Whether what is submitted now will be worked on. */
import { noWorker } from '../../engine/placement.ts'
import { keys } from '../../keys.ts'
import { translated } from '../../redis.ts'
import type { ApiParts } from '../context.ts'

/** How long Redis keeps what was written to see whether it can be, ms. */
const probeMs = 10_000

/**
 * Why the farm is not ready; empty when it is: Redis takes writes, the store takes files, and at least one worker takes
 * steps. What single sessions wait for does not count: they say it themselves.
 */
export async function notReady({ engine, artifacts, redis }: Pick<ApiParts, 'engine' | 'artifacts' | 'redis'>): Promise<string[]> {
  const failed = (what: string) => (error: unknown) => [`${what}: ${(error as Error).message}`]
  const faults = await Promise.all([
    translated(redis.set(keys.probe(), '', 'PX', probeMs)).then(() => [], failed('Redis takes no writes')),
    artifacts.probe().then(() => [], failed('the artifact store takes no files')),
    engine.workers().then(
      (workers) => (workers.some(({ status }) => status === 'ready') ? [] : [noWorker(workers)]),
      () => [],
    ),
  ])
  return faults.flat()
}
