/** Which models of waiting sessions a worker reads into RAM, and which it leaves to others. */
import { expect, it } from 'vitest'
import { queues } from '../../src/keys.ts'
import type { WorkerRecord } from '../../src/farm/record.ts'
import { prefetch, type PrefetchParts } from '../../src/workers/prefetch.ts'

const bodyHash = 'a'.repeat(64)
const wanted = { id: 'wanted', bodyHash }
const other = (more: Partial<WorkerRecord> = {}, cached: string[] = []): WorkerRecord =>
  ({
    id: 'other',
    exactnessKey: 'class',
    status: 'ready',
    running: [],
    resident: ['wanted'],
    report: { modelCache: { models: cached.map((hash) => ({ bodyHash: hash })) } },
    ...more,
  }) as unknown as WorkerRecord

/** What is read, while those wait and these workers live. */
async function read(
  waiting: readonly object[],
  workers: WorkerRecord[],
  more: { resident?: string[]; cached?: string[]; limit?: number } = {},
) {
  const begun: string[] = []
  const parts = {
    port: {
      waitingModels: () => Promise.resolve(waiting),
      workers: () => Promise.resolve(workers),
      models: {
        here: (model: { id: string }) =>
          model.id === 'gone' ? Promise.reject(new Error('gone')) : Promise.resolve({ verdict: { kind: 'checkpoint' } }),
      },
    },
    cache: {
      has: (hash: string) => (more.cached ?? []).includes(hash),
      limit: more.limit ?? 1,
      prefetch: ({ id }: { id: string }) => void begun.push(id),
    },
    worker: 'own',
    exactnessKey: 'class',
    queues: [queues.host],
  } as unknown as PrefetchParts
  await prefetch(parts, more.resident ?? [])
  return begun
}

it('a model of a session that waits is read', async () => {
  expect(await read([wanted, { id: 'second', bodyHash: 'b'.repeat(64) }], [])).toEqual(['wanted', 'second'])
  expect(await read([wanted], [other({ id: 'own' })])).toEqual(['wanted'])
})

it.each<[string, readonly object[], WorkerRecord[], Parameters<typeof read>[2]]>([
  ['that is resident here', [wanted], [], { resident: ['wanted'] }],
  ['that is cached here', [wanted], [], { cached: [bodyHash] }],
  ['that nobody has hashed', [{ id: 'wanted', bodyHash: null }], [], {}],
  ['that is only a VAE of another', [{ ...wanted, kind: 'vae' }], [], {}],
  ['that is gone meanwhile', [{ id: 'gone', bodyHash }], [], {}],
  ['while the cache is off', [wanted], [], { limit: 0 }],
  ['that an idle worker of the class has on its device', [wanted], [other()], {}],
  ['that an idle worker of the class has in RAM', [wanted], [other({ resident: [] }, [bodyHash])], {}],
])('none is read %s', async (_, waiting, workers, more) => {
  expect(await read(waiting, workers, more)).toEqual([])
})

it.each<[string, WorkerRecord]>([
  ['draws', other({ running: [{ key: 'k', step: 's', session: 'x', since: 0 }] })],
  ['is of another class', other({ exactnessKey: 'another' })],
  ['drains', other({ status: 'draining' })],
  ['has it neither on its device nor in RAM', other({ resident: [] }, ['b'.repeat(64)])],
])('one is read although another worker has it that %s', async (_, worker) => {
  expect(await read([wanted], [worker])).toEqual(['wanted'])
})
