/** What the scripts are given, as they take it. */
import type { DarkroomError } from '../errors.ts'
import { childValue, itemsValue, type Effects } from './plan.ts'

/** JSON of an entry without its braces, as the scripts put it behind the time. */
export const inner = (entry: object): string => JSON.stringify(entry).slice(1, -1)

/** What the catalogue says of an error that a script finds: it adds the message. */
export const told = ({ code, class: errorClass, remedy }: DarkroomError): string => inner({ code, class: errorClass, remedy })
export const flat = (effects: Effects, withClosed: boolean): (string | number)[] => [
  ...(withClosed ? [effects.closed.length, ...effects.closed.flatMap(({ suffix, child }) => [suffix, child])] : []),
  effects.steps.length,
  ...effects.steps.flatMap((step) => [step.suffix, step.step, step.invoke, step.lane, step.priority]),
  effects.timers.length,
  ...effects.timers.flatMap((timer) => [timer.suffix, timer.delayMs]),
  effects.sessions.length + effects.items.length,
  ...effects.sessions.flatMap((planned) => [planned.suffix, childValue(planned)]),
  ...effects.items.flatMap(({ suffix }) => [suffix, itemsValue]),
]
