/**
 * How a worker runs steps: one that another leaves no memory for, or whose models are not those that draw, and one that
 * begins before it has its lease.
 */
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { memoryError } from '../../src/domains/memory/errors.ts'
import type { OperationTable, Tools } from '../../src/domains/operation.ts'
import type { Attempt, AttemptPort, Delivery, GoingOn } from '../../src/engine/attempt.ts'
import { deferred } from '../../src/promises.ts'
import { StepRunner } from '../../src/workers/runner.ts'
import type { AttemptTools, ToolsOptions } from '../../src/workers/tools.ts'
import { eventually } from '../support/wait.ts'

/** Every session draws with one model, but for those called `other…`. */
const models = (id: string) => [{ id: id.startsWith('other') ? 'another' : 'model', bodyHash: '0' }]

/** Seats at a device that has memory for one session. `holder`: who has that at first. */
function device(holder?: string) {
  const done = new Map<string, Delivery | string>()
  const gates = new Map<string, ReturnType<typeof deferred<void>>>()
  let refusals = 0
  const attempt = (id: string): Attempt =>
    ({ id, stepKey: `${id}.1.0`, sessionId: id, step: 'draw', input: { id }, models: models(id) }) as unknown as Attempt
  const port = {
    times: { renewMs: 60_000 },
    take: (id: string) => Promise.resolve({ is: 'taken', attempt: attempt(id) }),
    renew: (of: Attempt) => Promise.resolve(of.id === paused ? 'pause' : 'run'),
    deliver: (of: Attempt, delivery: Delivery) => {
      done.set(of.id, delivery)
      return Promise.resolve({ isRecorded: true })
    },
    release: (of: Attempt, reason: string) => {
      done.set(of.id, reason)
      return Promise.resolve()
    },
  }
  let paused = ''
  const operations = {
    draw: {
      lane: 'gpu',
      timeoutMs: 400,
      run: async ({ id }: { id: string }, tools: AttemptTools) => {
        await tools.reserve()
        await gates.get(id)?.promise
        return id
      },
    },
  }
  const runner = new StepRunner({
    port: port as unknown as AttemptPort,
    operations: operations as unknown as OperationTable,
    taker: () => ({ worker: 'w', device: 'd', exactnessKey: '' }),
    tools: (of) => ({ attempt: of, folder: '/nowhere' }) as unknown as ToolsOptions,
    maxInARow: 1,
    hostLane: 1,
    log: pino({ level: 'silent' }),
    reserve: async ({ id }, signal) => {
      for (let i = 0; holder !== undefined && i < 10 && !signal.aborted; i++) await new Promise((resolve) => setTimeout(resolve, 10))
      if (holder !== undefined) {
        refusals++
        throw memoryError('reserved', 'others hold it')
      }
      holder = id
      return {
        renew: () => Promise.resolve(true),
        [Symbol.asyncDispose]: () => {
          if (holder === id) holder = undefined
          return Promise.resolve()
        },
      }
    },
  })
  return {
    runner,
    done,
    hold: (id: string) => {
      const gate = deferred<void>()
      gates.set(id, gate)
      return () => gate.resolve(undefined)
    },
    pause: (id: string) => {
      paused = id
      runner.renew(id)
    },
    refusals: () => refusals,
  }
}

describe('a step that finds no memory beside another on the device', () => {
  it('waits for that one, however long that takes, and then has all its time', async () => {
    const { runner, done, hold, refusals } = device()
    const open = hold('a')
    const first = runner.run('a', 'gpu')
    await eventually('the first one runs', async () => Promise.resolve(runner.running.length === 1))
    const second = runner.run('b', 'gpu')
    await eventually('it was refused thrice', async () => Promise.resolve(refusals() >= 3))
    expect(done.size).toBe(0)
    open()
    await Promise.all([first, second])
    expect(done.get('a')).toMatchObject({ output: 'a' })
    expect(done.get('b')).toMatchObject({ output: 'b' })
  })

  it('gives itself back when it is paused meanwhile', async () => {
    const { runner, done, hold, pause, refusals } = device()
    const open = hold('a')
    const first = runner.run('a', 'gpu')
    await eventually('the first one runs', async () => Promise.resolve(runner.running.length === 1))
    const second = runner.run('b', 'gpu')
    await eventually('it was refused', async () => Promise.resolve(refusals() >= 1))
    pause('b')
    await second
    expect(done.get('b')).toBe('pause')
    open()
    await first
    expect(done.get('a')).toMatchObject({ output: 'a' })
  })

  it('gives itself back too where others hold the memory: a pause is no try', async () => {
    const { runner, done, pause } = device('an allocation')
    const first = runner.run('a', 'gpu')
    await eventually('it waits', async () => Promise.resolve(runner.running.length === 1))
    pause('a')
    await first
    expect(done.get('a')).toBe('pause')
  })

  it('is refused where nothing else runs there: others hold the memory', async () => {
    const { runner, done } = device('an allocation')
    await runner.run('a', 'gpu')
    expect(done.get('a')).toMatchObject({ error: { code: 'memory.reserved' } })
  })
})

describe('a step that draws with another model than a session that came before', () => {
  it('waits until that has left the device, and keeps those waiting that came after', async () => {
    const { runner, done, hold, refusals } = device()
    const open = [hold('a'), hold('other b')]
    const runs = ['a', 'other b', 'c'].map((id) => runner.run(id, 'gpu'))
    await eventually('all have begun', async () => Promise.resolve(runner.running.length === 3))
    open[0]?.()
    await eventually('the first is over', async () => Promise.resolve(done.has('a')))
    await new Promise((resolve) => setTimeout(resolve, 600))
    // Neither has tried to reserve anything beside another, and waiting is no part of the time it may take.
    expect([[...done.keys()], refusals()]).toEqual([['a'], 0])
    open[1]?.()
    await Promise.all(runs)
    expect([...done.keys()]).toEqual(['a', 'other b', 'c'])
    expect(done.get('c')).toMatchObject({ output: 'c' })
  })

  it('gives itself back when it is paused meanwhile', async () => {
    const { runner, done, hold, pause } = device()
    const open = hold('a')
    const first = runner.run('a', 'gpu')
    const second = runner.run('other b', 'gpu')
    await eventually('both have begun', async () => Promise.resolve(runner.running.length === 2))
    pause('other b')
    await second
    expect(done.get('other b')).toBe('pause')
    open()
    await first
  })
})

/** A session of two steps. `grants`: whether the commit of the first gives the second its lease, once it is opened. */
function session(grants: boolean) {
  const commit = deferred<void>()
  const told: string[] = []
  const first = { id: 'a', stepKey: 's.1.0', sessionId: 's', step: 'first', input: {}, checkpoints: [], models: [] } as unknown as Attempt
  const second: Attempt = { ...first, id: 'b', stepKey: 's.2.0', step: 'second' }
  const port = {
    times: { renewMs: 60_000 },
    take: () => Promise.resolve({ is: 'taken', attempt: first }),
    renew: ({ id }: Attempt) => {
      told.push(`renew ${id}`)
      return Promise.resolve('run')
    },
    log: (_: Attempt, note: string) => Promise.resolve(told.push(note)),
    deliver: async (of: Attempt, _: Delivery, on?: GoingOn) => {
      if (of.id === 'a' && on?.taker('gpu')) on.begin?.(second)
      if (of.id === 'a') await commit.promise
      told.push(`deliver ${of.id}`)
      return { isRecorded: true, ...(of.id === 'a' && grants && { next: second }) }
    },
  }
  const until = deferred<void>()
  const operations = {
    first: { lane: 'gpu', timeoutMs: 10_000, run: () => Promise.resolve({}) },
    second: {
      lane: 'gpu',
      timeoutMs: 10_000,
      run: async (_: unknown, tools: Tools) => {
        await tools.note('it has begun')
        tools.onAbandoned(async () => void told.push('abandoned'))
        told.push('runs')
        await Promise.race([
          until.promise,
          new Promise<void>((_, reject) => tools.signal.addEventListener('abort', () => reject(new Error('stopped')))),
        ])
        return {}
      },
    },
  }
  const runner = new StepRunner({
    port: port as unknown as AttemptPort,
    operations: operations as unknown as OperationTable,
    taker: () => ({ worker: 'w', device: 'd', exactnessKey: 'k' }),
    tools: (attempt) => ({ attempt, folder: '/nowhere', port }) as unknown as ToolsOptions,
    maxInARow: 10,
    hostLane: 1,
    log: pino({ level: 'silent' }),
    reserve: () => Promise.resolve({ renew: () => Promise.resolve(true), [Symbol.asyncDispose]: () => Promise.resolve() }),
  })
  const over = runner.run('a', 'gpu')
  return { runner, told, over, commit: () => commit.resolve(undefined), finish: () => until.resolve(undefined) }
}

describe('a step that begins before the commit that asks for it', () => {
  it('runs meanwhile, and is heard once it has its lease', async () => {
    const { runner, told, over, commit, finish } = session(true)
    await eventually('the second runs', async () => Promise.resolve(told.includes('runs')))
    runner.renew('s')
    // It has none to renew, and nothing that it says would be recorded.
    expect(told).toEqual(['runs'])
    commit()
    await eventually('it has its lease', async () => Promise.resolve(told.length === 4))
    expect(told.slice(0, 2)).toEqual(['runs', 'deliver a'])
    expect(told.slice(2).toSorted()).toEqual(['it has begun', 'renew b'])
    finish()
    await over
    expect(told.at(-1)).toBe('deliver b')
    expect(runner.running).toEqual([])
  })

  it('is stopped when the commit gives it none, and nothing of it is told', async () => {
    const { runner, told, over, commit } = session(false)
    await eventually('the second runs', async () => Promise.resolve(told.includes('runs')))
    commit()
    await over
    expect(told).toEqual(['runs', 'deliver a', 'abandoned'])
    expect(runner.running).toEqual([])
  })
})
