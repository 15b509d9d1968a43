import { describe, expect, it } from 'vitest'
import { operations } from '../../src/domains/index.ts'
import { needsOf, placementOf, type Waiting } from '../../src/engine/placement.ts'
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
  models: ['body'],
  resident: [],
  running: [],
  lanes: { gpu: 1, host: 4 },
  childPid: null,
  logLinesDropped: 0,
  sparePid: null,
  report: report(),
  startedAt: 0,
  seenAt: 0,
  ...more,
})
const busy = { running: [{ key: 'k', step: 's', session: 'x', since: 0 }] }
const [model, other] = [
  { id: 'model', bodyHash: 'body' },
  { id: 'other', bodyHash: 'other' },
]
const step: Pick<Waiting, 'lane' | 'models' | 'exactnessKey' | 'lastWorker' | 'device' | 'avoid' | 'target'> = {
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
      [worker('a', { models: [] })],
      { nowhere: 'no worker has model model with body body', elsewhere: false },
    ],
    [
      'a worker that has all of its models',
      { models: [model, other] },
      [worker('a'), worker('b', { models: ['body', 'other'], exactnessKey: '2' })],
      { nowhere: 'no worker of hardware class 11111111 is running', elsewhere: true },
    ],
    [
      'nowhere while no worker has all of its models',
      { models: [model, other] },
      [worker('a'), worker('b', { models: ['other'] })],
      { nowhere: 'no worker has model model with body body and model other with body other', elsewhere: false },
    ],
    [
      'nowhere while its device lacks one of its models',
      { models: [model, other], device: id('a') },
      [worker('a'), worker('b', { models: ['body', 'other'] })],
      { nowhere: `device ${id('a')}, whose worker has no model other with body other`, elsewhere: false },
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
      [worker('a', { models: [] }), worker('b')],
      { nowhere: `device ${id('a')}, whose worker has no model model with body body`, elsewhere: false },
    ],
    [
      'on its device again from the start, when that one is of another class now',
      { device: id('a') },
      [worker('a', { exactnessKey: '2' }), worker('b')],
      { nowhere: `device ${id('a')}, which is of hardware class 2 now, not 11111111`, elsewhere: true },
    ],
    ['the host lane, whatever its device', { lane: 'host', device: id('c') }, [worker('a')], { queue: 'host', isAffinity: false }],
    ['the host lane', { lane: 'host' }, [worker('a')], { queue: 'host', isAffinity: false }],
    ['no host lane without a worker', { lane: 'host' }, [], { nowhere: 'no worker is running', elsewhere: false }],
  ])('%s', (_, over, workers, expected) => {
    expect(placementOf({ ...step, ...over }, workers)).toEqual(expected)
    expect(placementOf({ ...step, ...over }, workers.toReversed())).toEqual(expected)
  })
})

describe('what a step needs', () => {
  const pin = { id: 'model', bodyHash: 'a'.repeat(64) }
  const target = { device: 'd', worker: 'w', epoch: 'e' }

  it.each([
    ['the model of its own input', 'inference.decode', { model: pin }, { models: [pin], target: null }],
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
