/**
 * `program`, in a process whose loops that wait for a job of BullMQ wait for ever once it is sent SIGUSR1. It is a
 * module of the farm, so that it is built with the process and reaches its BullMQ.
 */
import { Worker } from 'bullmq'

export * from './program.ts'

let areStuck = false
process.on('SIGUSR1', () => (areStuck = true))
const there = new WeakSet()
const prototype = Worker.prototype as unknown as { waitForJob: (this: object, ...given: unknown[]) => Promise<unknown> }
const own = prototype.waitForJob
prototype.waitForJob = function (...given) {
  if (!areStuck) there.add(this)
  return areStuck && there.has(this) ? new Promise(() => undefined) : own.apply(this, given)
}
