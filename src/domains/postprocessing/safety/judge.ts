/**
 * Policies at work. Pure. First a policy is applied to a request: rules that its prompts or its key leave out fall
 * away. What is left is asked of the scores of each picture.
 */
import { z } from 'zod'
import { Fraction } from '../../values.ts'
import { fits, hasWords } from './patterns.ts'
import {
  Action,
  minors,
  minorsLimit,
  PolicyRef,
  strictest,
  strictness,
  type AppliedPolicy,
  type Condition,
  type Limits,
  type Policy,
  type Rule,
} from './policy.ts'

/** What rules may ask besides scores: the prompts, and whose request it is. */
export interface Asked {
  texts: readonly string[]
  keyId: string | null
}

interface Prompted {
  prompt?: string | undefined
  hires?: { prompt?: string | undefined } | undefined
  detail?: readonly { prompt?: string | undefined }[] | undefined
}

/** Every text of a request that says what to draw. */
export const promptsOf = ({ prompt, hires, detail = [] }: Prompted): string[] =>
  [prompt, hires?.prompt, ...detail.map((each) => each.prompt)].filter((text) => text !== undefined)

/** Of each category the score, 0 to 1. */
export type Scores = Readonly<Record<string, number>>

const Because = z.strictObject({ category: z.string(), score: Fraction, limit: Fraction })
const Fired = z.strictObject({
  /** `category <name>`, or `rule <name>`. */
  rule: z.string(),
  action: Action,
  /** The scores that it was for; none where it asks of the prompts alone. */
  because: z.array(Because),
  /** What would not have fired it, in words. */
  passes: z.string(),
})
export type Fired = z.infer<typeof Fired>

/** What policies say of one picture: the strictest of them, and everything that fired. */
export const Verdict = z.strictObject({
  action: Action,
  /** The policy and rule that the action follows from; null where nothing fired. */
  policy: PolicyRef,
  rule: z.string().nullable(),
  score: Fraction.nullable(),
  passes: z.string().nullable(),
  fired: z.array(Fired.extend({ policy: PolicyRef })),
  /** Why no classifier has looked at the picture, where a policy let it pass without. */
  unchecked: z.string().optional(),
})
export type Verdict = z.infer<typeof Verdict>

const needsScores = ({ all, any }: Pick<Rule, 'all' | 'any'>): boolean => all !== undefined || any !== undefined

/** Whether all that a rule asks besides scores is so. */
export function isAsked({ words, pattern, keys }: Rule, { texts, keyId }: Asked): boolean {
  return (
    (keys === undefined || (keyId !== null && keys.includes(keyId))) &&
    (words === undefined || hasWords(texts, words)) &&
    (pattern === undefined || fits(texts, pattern))
  )
}

/** The first rule that blocks this request before anything is drawn. */
export const blocksAtOnce = ({ rules }: Pick<Policy, 'rules'>, asked: Asked): Rule | undefined =>
  rules.find((rule) => rule.action === 'block' && !needsScores(rule) && isAsked(rule, asked))

type Found = Pick<AppliedPolicy, 'classifiers' | 'missing'>

/** A policy as it applies to this request, with its classifiers as they were found. */
export function applied({ name, version }: PolicyRef, policy: Policy, asked: Asked, { classifiers, missing = [] }: Found): AppliedPolicy {
  return {
    name,
    version,
    classifiers,
    ...(missing.length > 0 && { missing }),
    categories: policy.categories,
    rules: policy.rules
      .filter((rule) => isAsked(rule, asked))
      .map(({ name: own, action, all, any }) => ({ name: own, action, ...(all && { all }), ...(any && { any }) })),
    allowUnchecked: policy.allowUnchecked,
    blockedForS: policy.blockedForS,
  }
}

/** Categories whose scores a policy asks for. */
export function categoriesOf({ categories, rules }: Pick<AppliedPolicy, 'categories' | 'rules'>): string[] {
  const ofRules = rules.flatMap(({ all = [], any = [] }) => [...all, ...any]).map(({ category }) => category)
  return [...new Set([...Object.keys(categories), ...ofRules])]
}

/** Categories that a policy asks for, and that nobody has scored. */
export const unscored = (policy: Pick<AppliedPolicy, 'categories' | 'rules'>, scores: Scores): string[] =>
  categoriesOf(policy).filter((category) => !Object.hasOwn(scores, category))

/**
 * What policies say of a picture with these scores. A category without a score fires nothing: whoever calls it has
 * looked at `unscored` before.
 */
export function judged(policies: readonly [AppliedPolicy, ...AppliedPolicy[]], scores: Scores): Verdict {
  const fired = policies.flatMap((policy) =>
    [...ofCategories(policy, scores), ...ofRules(policy, scores)].map((each) => ({
      ...each,
      policy: { name: policy.name, version: policy.version },
    })),
  )
  const action = strictest(fired.map((each) => each.action))
  const [first] = policies
  const decisive = fired.find((each) => each.action === action)
  return {
    action,
    policy: decisive?.policy ?? { name: first.name, version: first.version },
    rule: decisive?.rule ?? null,
    score: decisive?.because[0]?.score ?? null,
    passes: decisive?.passes ?? null,
    fired: fired.toSorted((a, b) => strictness(b.action) - strictness(a.action)),
  }
}

/**
 * The verdict on a picture that no classifier has looked at. What asks of no score still fires.
 * @param why what kept the classifiers from it
 */
export const uncheckedVerdict = (policies: readonly [AppliedPolicy, ...AppliedPolicy[]], why: string): Verdict => ({
  ...judged(policies, {}),
  unchecked: why,
})

function ofCategories({ categories }: AppliedPolicy, scores: Scores): Fired[] {
  const limits: Record<string, Limits> = {
    ...categories,
    [minors]: { block: Math.min(categories[minors]?.block ?? minorsLimit, minorsLimit) },
  }
  return Object.entries(limits).flatMap(([category, own]): Fired[] => {
    const score = scores[category]
    if (score === undefined) return []
    const taken = (['block', 'blur', 'flag'] as const).find((action) => score >= (own[action] ?? Infinity))
    if (taken === undefined) return []
    const limit = own[taken] ?? 0
    return [
      {
        rule: `category ${category}`,
        action: taken,
        because: [{ category, score, limit }],
        passes: `a score of ${category} below ${Math.min(...Object.values(own).filter((each) => each !== undefined))}`,
      },
    ]
  })
}

function ofRules({ rules }: AppliedPolicy, scores: Scores): Fired[] {
  return rules.flatMap((rule): Fired[] => {
    const { all = [], any } = rule
    const isSo = ({ category, atLeast }: Condition): boolean => (scores[category] ?? -1) >= atLeast
    const met = any?.filter(isSo)
    if (!all.every(isSo) || met?.length === 0) return []
    const because = [...all, ...(met ?? [])].map(({ category, atLeast }) => ({ category, score: scores[category] ?? 0, limit: atLeast }))
    return [{ rule: `rule ${rule.name}`, action: rule.action, because, passes: passesOf(all, met) }]
  })
}

function passesOf(all: readonly Condition[], met: readonly Condition[] | undefined): string {
  const below = ({ category, atLeast }: Condition): string => `${category} below ${atLeast}`
  const one = all.map(below)
  const every = met ? [met.map(below).join(' and ')] : []
  const ways = [...one, ...every]
  return ways.length === 0 ? 'another prompt' : `a score of ${ways.join(', or of ')}`
}
