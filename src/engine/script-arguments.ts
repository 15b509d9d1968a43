/** What the scripts are given, as they take it. */
import type { DarkroomError } from '../errors.ts'
import { childValue, itemsValue, type Effects } from './plan.ts'

/** JSON of an entry without its braces, as the scripts put it behind the time. */
export const inner = (entry: object): string => JSON.stringify(entry).slice(1, -1)

/** What the catalogue says of an error that a script finds: it adds the message. */
export const told = ({ code, class: errorClass, remedy }: DarkroomError): string => inner({ code, class: errorClass, remedy })

/** Effects as `openFrom` of the prelude reads them. One list that grows: every commit makes one. */
export function flat(effects: Effects, withClosed: boolean): (string | number)[] {
  const list: (string | number)[] = []
  if (withClosed) {
    list.push(effects.closed.length)
    for (const { suffix, child } of effects.closed) list.push(suffix, child)
  }
  list.push(effects.steps.length)
  for (const step of effects.steps) list.push(step.suffix, step.step, step.invoke, step.lane, step.priority)
  list.push(effects.timers.length)
  for (const timer of effects.timers) list.push(timer.suffix, timer.delayMs)
  list.push(effects.sessions.length + effects.items.length)
  for (const planned of effects.sessions) list.push(planned.suffix, childValue(planned))
  for (const { suffix } of effects.items) list.push(suffix, itemsValue)
  return list
}
