import { describe, expect, it } from 'vitest'
import { operations } from '../../src/domains/index.ts'
import { needsOf, placementOf, type Shelves, type Waiting } from '../../src/engine/placement.ts'
import type { WorkerRecord } from '../../src/farm/record.ts'
import { report } from '../support/report.ts'

const worker = (id: string, more: Partial<WorkerRecord> = {}): WorkerRecord => ({
  id,
  host: '0123abcd',
  pid: 1,
  epoch: 'e',
  device: { id: `0123abcd-cpu-0-${id}`, kind: 'cpu', name: 'a CPU', index: 0, totalBytes: null },
  exactnessKey: '11111111',
  hardware: {},
  build: {},
  settings: {},
  status: 'ready',
  shelf: 'body',
  resident: [],
  running: [],
  lanes: { gpu: 1, host: 4 },
  childPid: null,
  pictures: [],
  logLinesDropped: 0,
  sparePid: null,
  report: report(),
  startedAt: 0,
  seenAt: 0,
  ...more,
})
/** A shelf is named by its bodies; `?name` has one of that name which nobody has hashed, `!name` another one. */
const shelves: Shelves = {
  holds: (shelf, { id, bodyHash }) => {
    const has = new Set(shelf.split(' '))
    if (bodyHash === null ? has.has(id) : has.has(bodyHash)) return 'yes'
    return has.has(`?${id}`) ? 'unhashed' : has.has(`!${id}`) ? 'other' : 'no'
  },
  isSomewhere: ({ id }) => id === 'kept elsewhere',
}
const busy = { running: [{ key: 'k', step: 's', session: 'x', since: 0 }] }
const [model, other] = [
  { id: 'model', bodyHash: 'body' },
  { id: 'other', bodyHash: 'other' },
]
const step: Pick<Waiting, 'lane' | 'models' | 'exactnessKey' | 'lastWorker' | 'waitsInLine' | 'device' | 'avoid' | 'target'> = {
  lane: 'gpu',
  models: [model],
  exactnessKey: '11111111',
  lastWorker: null,
  device: null,
  avoid: null,
  target: null,
}
const classQueue = { queue: 'gpu.11111111', isAffinity: false }
const id = (worker: string): string => `0123abcd-cpu-0-${worker}`
const own = (worker: string) => ({ queue: `gpu.${id(worker)}`, isAffinity: true })

describe('where a step may run', () => {
  it.each<[string, Partial<typeof step>, WorkerRecord[], unknown]>([
    ['its class', {}, [worker('a'), worker('b')], classQueue],
    ['the worker that has its tensors', { lastWorker: 'b' }, [worker('a'), worker('b')], own('b')],
    [
      'that worker, of a session that was not let in, while it is idle',
      { lastWorker: 'b', waitsInLine: true },
      [worker('a'), worker('b')],
      own('b'),
    ],
    ['its class, when that one is busy', { lastWorker: 'b', waitsInLine: true }, [worker('a'), worker('b', busy)], classQueue],
    ['its class, when that worker is gone', { lastWorker: 'c' }, [worker('a'), worker('b')], classQueue],
    ['its class, when that worker drains', { lastWorker: 'b' }, [worker('a'), worker('b', { status: 'draining' })], classQueue],
    ['its class, when that worker is of another now', { lastWorker: 'b' }, [worker('a'), worker('b', { exactnessKey: '2' })], classQueue],
    ['the idlest other, after a failure', { avoid: 'a' }, [worker('a'), worker('b', busy), worker('c')], own('c')],
    ['another, though its tensors are there', { avoid: 'a', lastWorker: 'a' }, [worker('a'), worker('b')], own('b')],
    ['where it failed, when there is no other', { avoid: 'a' }, [worker('a'), worker('b', { exactnessKey: '2' })], classQueue],
    [
      'the larger class, when it is free to choose',
      { exactnessKey: null },
      [worker('z', { exactnessKey: '0' }), worker('a'), worker('b')],
      classQueue,
    ],
    ['nowhere without a worker', {}, [], { nowhere: 'no worker is running', elsewhere: false }],
    ['nowhere with a suspect one', {}, [worker('a', { status: 'suspect' })], { nowhere: 'no worker is running', elsewhere: false }],
    [
      'nowhere with a stalled one',
      {},
      [worker('a', { status: 'stalled' })],
      { nowhere: 'stalled, taking nothing although jobs wait: a', elsewhere: false },
    ],
    [
      'a stalled worker, when it is a command for it',
      { lane: 'control', target: { device: 'd', worker: 'a', epoch: 'e' } },
      [worker('a', { status: 'stalled' })],
      { queue: 'control.d', isAffinity: true },
    ],
    ['its class, when that worker is stalled', { lastWorker: 'b' }, [worker('a'), worker('b', { status: 'stalled' })], classQueue],
    [
      'nowhere without its model',
      {},
      [worker('a', { shelf: '' })],
      { nowhere: 'no worker has model model with body body', elsewhere: false },
    ],
    [
      'a worker that has all of its models',
      { models: [model, other] },
      [worker('a'), worker('b', { shelf: 'body other', exactnessKey: '2' })],
      { nowhere: 'no worker of hardware class 11111111 is running', elsewhere: true },
    ],
    [
      'nowhere while no worker has all of its models',
      { models: [model, other] },
      [worker('a'), worker('b', { shelf: 'other' })],
      { nowhere: 'no worker has model model with body body and model other with body other', elsewhere: false },
    ],
    [
      'nowhere while its device lacks one of its models',
      { models: [model, other], device: id('a') },
      [worker('a'), worker('b', { shelf: 'body other' })],
      { nowhere: `device ${id('a')}: no worker has model other with body other`, elsewhere: false },
    ],
    [
      'elsewhere only, when its class is gone',
      {},
      [worker('a', { exactnessKey: '2' })],
      { nowhere: 'no worker of hardware class 11111111 is running', elsewhere: true },
    ],
    ['its device, though the last tensors are elsewhere', { device: id('a'), lastWorker: 'b' }, [worker('a'), worker('b')], own('a')],
    ['its device, before a class is pinned', { device: id('a'), exactnessKey: null }, [worker('a'), worker('b'), worker('c')], own('a')],
    ['its device, though it failed there', { device: id('a'), avoid: 'a' }, [worker('a'), worker('b')], own('a')],
    [
      'nowhere while its device has no worker',
      { device: id('c') },
      [worker('a'), worker('c', { status: 'draining' })],
      { nowhere: `device ${id('c')}, which has no ready worker now`, elsewhere: false },
    ],
    [
      'nowhere while its device lacks the model',
      { device: id('a') },
      [worker('a', { shelf: '' }), worker('b')],
      { nowhere: `device ${id('a')}: no worker has model model with body body`, elsewhere: false },
    ],
    [
      'on its device again from the start, when that one is of another class now',
      { device: id('a') },
      [worker('a', { exactnessKey: '2' }), worker('b')],
      { nowhere: `device ${id('a')}, which is of hardware class 2 now, not 11111111`, elsewhere: true },
    ],
    [
      'the host lane, whatever its device',
      { lane: 'host', models: [], device: id('c') },
      [worker('a')],
      { queue: 'host', isAffinity: false },
    ],
    [
      'a queue of those that have the model, where not all workers of the class do',
      {},
      [worker('a'), worker('b', { shelf: 'other' })],
      { queue: 'gpu.11111111.body', isAffinity: false },
    ],
    [
      'that of the class with most workers that have it',
      { exactnessKey: null },
      [worker('a', { shelf: 'other' }), worker('b', { shelf: 'other' }), worker('c', { exactnessKey: '2' })],
      { queue: 'gpu.2', isAffinity: false },
    ],
    [
      'a host that has the model, beside the device too',
      { lane: 'host' },
      [worker('a', { shelf: 'other' }), worker('b')],
      { queue: 'host.body', isAffinity: false },
    ],
    [
      'nowhere beside the device either, without the model',
      { lane: 'host' },
      [worker('a', { shelf: '' })],
      { nowhere: 'no worker has model model with body body', elsewhere: false },
    ],
    [
      'nowhere yet while the only worker with that name has not hashed it',
      {},
      [worker('a', { shelf: '?model' })],
      { nowhere: 'the hash of model model, which tells whether a worker has the pinned one', elsewhere: false },
    ],
    [
      'where it is known to be, not where it may be',
      {},
      [worker('a', { shelf: '?model' }), worker('b')],
      { queue: 'gpu.11111111.body', isAffinity: false },
    ],
    [
      'nowhere while one of its models is another here, and a host without a worker has it',
      { models: [{ id: 'kept elsewhere', bodyHash: 'gone' }] },
      [worker('a', { shelf: '!kept elsewhere' })],
      { nowhere: 'no worker has model kept elsewhere with body gone', elsewhere: false },
    ],
    [
      'no place any more, when its model is another everywhere',
      {},
      [worker('a', { shelf: '!model' })],
      { over: expect.objectContaining({ code: 'model.changed', field: 'input.model' }) as unknown },
    ],
    [
      'any that has the name, before it is pinned',
      { models: [{ id: 'model', bodyHash: null }] },
      [worker('a', { shelf: 'model' })],
      classQueue,
    ],
    ['the host lane', { lane: 'host' }, [worker('a')], { queue: 'host', isAffinity: false }],
    ['no host lane without a worker', { lane: 'host' }, [], { nowhere: 'no worker is running', elsewhere: false }],
  ])('%s', (_, over, workers, expected) => {
    expect(placementOf({ ...step, ...over }, workers, shelves)).toEqual(expected)
    expect(placementOf({ ...step, ...over }, workers.toReversed(), shelves)).toEqual(expected)
  })
})

describe('what a step needs', () => {
  const pin = { id: 'model', bodyHash: 'a'.repeat(64) }
  const vae = { id: 'a VAE', bodyHash: 'b'.repeat(64) }
  const target = { device: 'd', worker: 'w', epoch: 'e' }

  it.each([
    ['the model of its own input', 'inference.decode', { model: pin }, { models: [pin], target: null }],
    [
      'the VAE that decodes in place of its own, too',
      'inference.decode',
      { model: { ...pin, vae } },
      {
        models: [
          { ...pin, vae },
          { ...vae, kind: 'vae' },
        ],
        target: null,
      },
    ],
    ['the worker that a command names', 'memory.release', { target, id: 'd.01234567.1' }, { models: [], target }],
    ['nothing beside the device', 'postprocessing.save', {}, { models: [], target: null }],
    ['what a process without the operation cannot say', 'upscaling.dream', {}, undefined],
  ])('%s', (_, name, input, expected) => expect(needsOf(operations, name, input)).toEqual(expected))

  it.each([
    ['inference.decode', {}],
    ['inference.decode', undefined],
    ['memory.release', { target: { device: 'd' } }],
  ])('is broken when the input of %s does not say it', (name, input) =>
    expect(() => needsOf(operations, name, input)).toThrow(expect.objectContaining({ code: 'workflow.broken' })),
  )
})
