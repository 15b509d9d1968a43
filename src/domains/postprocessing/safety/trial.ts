/**
 * A policy tried before it applies: on samples whose scores are known, and against the version that is in force. Pure.
 */
import { z } from 'zod'
import { Count, Fraction, ImageRequest } from '../../values.ts'
import { applied, blocksAtOnce, judged, unscored, type Asked } from './judge.ts'
import { Action, actions, Category, type Policy, type PolicyRef } from './policy.ts'

export const mostSamples = 2000

/** A picture whose scores are known, and what should be done with it. */
export const Sample = z.strictObject({
  name: z.string().max(200).optional(),
  scores: z.record(Category, Fraction),
  prompt: ImageRequest.shape.prompt.max(8000).default(''),
  keyId: z.string().max(64).nullable().default(null),
  expected: Action.optional(),
})
export type Sample = z.infer<typeof Sample>

const Outcome = z.strictObject({ action: Action, rule: z.string().nullable() })
const Counts = z.strictObject(Object.fromEntries(actions.map((action) => [action, Count])) as Record<Action, typeof Count>)

export const Trial = z
  .strictObject({
    samples: Count,
    actions: Counts,
    /** By what was expected, how often each action came of it; of samples that say what they expect. */
    confusion: z.strictObject(Object.fromEntries(actions.map((action) => [action, Counts])) as Record<Action, typeof Counts>),
    asExpected: Count,
    wrong: z.array(Outcome.extend({ sample: Count, name: z.string().nullable(), expected: Action, passes: z.string().nullable() })),
    wrongMore: Count,
    /** Samples that the version in force treats otherwise; null where none is. */
    changes: z
      .strictObject({
        version: z.int(),
        stricter: Count,
        milder: Count,
        first: z.array(z.strictObject({ sample: Count, name: z.string().nullable(), from: Outcome, to: Outcome })),
        more: Count,
      })
      .nullable(),
    /** Categories that the policy asks for and some sample has no score of: such a picture would not pass. */
    unscored: z.array(z.strictObject({ category: z.string(), samples: Count })),
  })
  .meta({ id: 'PolicyTrial' })
export type Trial = z.infer<typeof Trial>

/** So many samples a report names one by one. */
const mostNamed = 50

interface Version extends PolicyRef {
  policy: Policy
}

function outcomeOf({ policy, ...ref }: Version, { scores, prompt, keyId }: Sample) {
  const asked: Asked = { texts: [prompt], keyId }
  const atOnce = blocksAtOnce(policy, asked)
  if (atOnce) return { action: 'block' as const, rule: `rule ${atOnce.name}`, passes: 'another prompt', lacking: [] }
  const whole = applied(ref, policy, asked, { classifiers: [] })
  const { action, rule, passes } = judged([whole], scores)
  return { action, rule, passes, lacking: unscored(whole, scores) }
}

const none = (): z.infer<typeof Counts> => ({ allow: 0, flag: 0, blur: 0, block: 0 })

/** `active`: the version in force, where there is one. */
export function tried(candidate: Version, active: Version | null, samples: readonly Sample[]): Trial {
  const total = none()
  const confusion = { allow: none(), flag: none(), blur: none(), block: none() }
  const wrong: Trial['wrong'] = []
  const first: NonNullable<Trial['changes']>['first'] = []
  const lacking = new Map<string, number>()
  let [asExpected, stricter, milder] = [0, 0, 0]
  for (const [sample, each] of samples.entries()) {
    const { passes, lacking: own, ...to } = outcomeOf(candidate, each)
    const name = each.name ?? null
    total[to.action]++
    for (const category of own) lacking.set(category, (lacking.get(category) ?? 0) + 1)
    if (each.expected !== undefined) {
      confusion[each.expected][to.action]++
      if (each.expected === to.action) asExpected++
      else wrong.push({ sample, name, expected: each.expected, ...to, passes })
    }
    if (!active) continue
    const { action, rule } = outcomeOf(active, each)
    if (action === to.action) continue
    if (actions.indexOf(to.action) > actions.indexOf(action)) stricter++
    else milder++
    first.push({ sample, name, from: { action, rule }, to })
  }
  return {
    samples: samples.length,
    actions: total,
    confusion,
    asExpected,
    wrong: wrong.slice(0, mostNamed),
    wrongMore: Math.max(0, wrong.length - mostNamed),
    changes: active && {
      version: active.version,
      stricter,
      milder,
      first: first.slice(0, mostNamed),
      more: Math.max(0, first.length - mostNamed),
    },
    unscored: [...lacking].map(([category, count]) => ({ category, samples: count })),
  }
}

export const Difference = z.strictObject({ at: z.string(), from: z.unknown(), to: z.unknown() })
export type Difference = z.infer<typeof Difference>

/** What two versions say otherwise, by where it stands; null where one says nothing. */
export function differences(from: Policy, to: Policy): Difference[] {
  const [before, after] = [told(from), told(to)]
  return [...new Set([...before.keys(), ...after.keys()])]
    .toSorted()
    .map((at) => ({ at, from: before.get(at) ?? null, to: after.get(at) ?? null }))
    .filter((each) => JSON.stringify(each.from) !== JSON.stringify(each.to))
}

function told({ categories, rules, ...rest }: Policy): Map<string, unknown> {
  return new Map([
    ...Object.entries(rest),
    ...Object.entries(categories).map(([category, limits]): [string, unknown] => [`categories.${category}`, inOrder(limits)]),
    ...rules.map((rule): [string, unknown] => [`rules.${rule.name}`, inOrder(rule)]),
  ])
}

const inOrder = (fields: object): object => Object.fromEntries(Object.entries(fields).toSorted(([a], [b]) => (a < b ? -1 : 1)))
