/**
 * How code of a workflow's module runs that may only compute: while a module is evaluated, and in every transition of
 * its machines. It ends within a time, and asks neither clock nor chance. This finds mistakes; it is no prison: who may
 * write into the folder may run code as Darkroom.
 */
import { webcrypto } from 'node:crypto'
import { Script } from 'node:vm'
import { workflowError } from '../../errors.ts'

/** How long it may take, ms: nothing else happens in the process meanwhile. */
const limitMs = 2000

const slot = Symbol.for('darkroom.purely')
const call = new Script(`globalThis[Symbol.for('darkroom.purely')]()`, { filename: 'purely' })
let isPure = false

/**
 * Runs `act` so.
 * @throws DarkroomError `workflow.broken` when it does not end in time, or asks what it must not; whatever `act` throws
 */
export function purely<T>(act: () => T): T {
  const globals = globalThis as unknown as Record<symbol, unknown>
  globals[slot] = act
  isPure = true
  try {
    return call.runInThisContext({ timeout: limitMs }) as T
  } catch (error) {
    if ((error as NodeJS.ErrnoException | undefined)?.code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error
    throw workflowError('broken', `it did not end within ${limitMs / 1000} s`, { cause: error })
  } finally {
    isPure = false
    delete globals[slot]
  }
}

function refuse(name: string, what: string): void {
  if (isPure) throw workflowError('broken', `${name} ${what}: a machine computes the same each time, so that is for a step or a timer`)
}

/** The same object, but for members that are refused while only computing is allowed. */
function watched<T extends object>(object: T, name: string, what: string, members: readonly string[]): T {
  return new Proxy(object, {
    get(target, key) {
      const value = Reflect.get(target, key) as unknown
      if (typeof value !== 'function') return value
      if (!members.includes(String(key))) return value
      return (...args: unknown[]): unknown => {
        refuse(`${name}.${String(key)}`, what)
        return Reflect.apply(value, target, args)
      }
    },
  })
}

const clock = 'reads a clock'
const chance = 'draws lots'

/** `new Date(text)` computes; a date of now does not. */
const WatchedDate = new Proxy(watched(Date, 'Date', clock, ['now']), {
  construct(target, args, newTarget) {
    if (args.length === 0) refuse('new Date()', clock)
    return Reflect.construct(target, args, newTarget) as object
  },
  apply(target, self, args) {
    refuse('Date()', clock)
    return Reflect.apply(target, self, args)
  },
})

/** Globals of a module, in place of Node's; what does I/O is not there. */
export const globalsOfModule: Readonly<Record<string, unknown>> = {
  Date: WatchedDate,
  Math: watched(Math, 'Math', chance, ['random']),
  performance: watched(performance, 'performance', clock, ['now']),
  crypto: watched(webcrypto, 'crypto', chance, ['randomUUID', 'getRandomValues']),
  process: undefined,
  fetch: undefined,
  setTimeout: undefined,
  setInterval: undefined,
  setImmediate: undefined,
  queueMicrotask: undefined,
}
