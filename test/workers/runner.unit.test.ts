/** A step that another one on the device leaves no memory for. */
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { memoryError } from '../../src/domains/memory/errors.ts'
import type { OperationTable } from '../../src/domains/operation.ts'
import type { Attempt, AttemptPort, Delivery } from '../../src/engine/attempt.ts'
import { deferred } from '../../src/promises.ts'
import { StepRunner } from '../../src/workers/runner.ts'
import type { ToolsOptions } from '../../src/workers/tools.ts'
import { eventually } from '../support/wait.ts'

/** Two seats at a device that has memory for one of them. `holder`: who has it at first. */
function device(holder?: string) {
  const done = new Map<string, Delivery | string>()
  const gates = new Map<string, ReturnType<typeof deferred<void>>>()
  let refusals = 0
  const attempt = (id: string): Attempt => ({ id, stepKey: `${id}.1.0`, sessionId: id, step: 'draw', input: { id } }) as unknown as Attempt
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
      run: async ({ id }: { id: string }) => {
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
