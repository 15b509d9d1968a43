/**
 * Which running sessions are asked to make way. Pure. An urgent session (priority 9) is let in beside what comes next;
 * where no worker of its queue is idle, the least urgent step that runs there gives its device back at its next call,
 * and goes on later from its checkpoint. A session makes way once.
 */
import { queues } from '../keys.ts'
import type { Holder, Slots } from './slots.ts'
import { highestPriority } from './turns.ts'

export const isUrgent = ({ priority }: { priority: number }): boolean => priority === highestPriority

/** Steps to be asked now. */
export function victims(holders: readonly Holder[], slots: Slots): Holder[] {
  const waiting = holders.filter((holder) => queues.isGpu(holder.holder) && isUrgent(holder))
  const chosen: Holder[] = []
  for (const queue of new Set(waiting.map(({ holder }) => holder))) {
    const workers = slots.workersOf(queue)
    const running = holders.filter(({ holder }) => workers.includes(holder))
    const idle = workers.filter((worker) => slots.runningOn(worker) === 0).length
    const asked = running.filter(({ state, stepKey }) => state === 'asked' || chosen.some((each) => each.stepKey === stepKey)).length
    const wanted = waiting.filter(({ holder }) => holder === queue).length - idle - asked
    const may = running.filter((each) => each.state === '-' && !isUrgent(each) && !chosen.includes(each))
    const first = may.toSorted((a, b) => a.priority - b.priority || (a.stepKey < b.stepKey ? 1 : -1)).slice(0, Math.max(0, wanted))
    // Sessions that share a device make way together.
    chosen.push(...may.filter((each) => first.some(({ holder }) => holder === each.holder)))
  }
  return chosen
}
