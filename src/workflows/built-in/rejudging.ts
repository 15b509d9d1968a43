/** What comes of pictures that are judged again: counts, and the pictures that are treated otherwise now. Pure. */
import { z } from 'zod'
import { Rejudged } from '../../domains/postprocessing/rejudge.ts'
import { actions, strictness, type Action } from '../../domains/postprocessing/safety/policy.ts'
import { Count } from '../../domains/values.ts'

/** Pictures that are told of one by one. */
const mostListed = 1000

const Counts = z.strictObject(Object.fromEntries(actions.map((action) => [action, Count])) as Record<Action, typeof Count>)

/** `before`: what policies had done, of those that one has judged. One that none had judged counts as allowed. */
export const Tally = z.strictObject({
  pictures: Count,
  actions: Counts,
  before: Counts,
  stricter: Count,
  milder: Count,
  /** Pictures that cannot be judged. */
  open: Count,
  /** In their order: those that are treated otherwise now, and those that cannot be judged. */
  listed: z.array(Rejudged),
  more: Count,
})
export type Tally = z.infer<typeof Tally>

const none = (): z.infer<typeof Counts> => ({ allow: 0, flag: 0, blur: 0, block: 0 })

export const emptyTally = (): Tally => ({
  pictures: 0,
  actions: none(),
  before: none(),
  stricter: 0,
  milder: 0,
  open: 0,
  listed: [],
  more: 0,
})

/** With these verdicts. */
export function tallied(tally: Tally, verdicts: readonly Rejudged[]): Tally {
  const made = { ...tally, actions: { ...tally.actions }, before: { ...tally.before }, listed: [...tally.listed] }
  for (const verdict of verdicts) {
    const { was, action } = verdict
    made.pictures++
    if (was) made.before[was]++
    if (action) made.actions[action]++
    else made.open++
    const step = action ? strictness(action) - strictness(was ?? 'allow') : 0
    if (step > 0) made.stricter++
    if (step < 0) made.milder++
    if (step === 0 && action) continue
    if (made.listed.length < mostListed) made.listed.push(verdict)
    else made.more++
  }
  return made
}
