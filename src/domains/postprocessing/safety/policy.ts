/** What a policy of content safety says. A version of one never changes. */
import { z } from 'zod'
import { Fraction, ModelName, Sha256 } from '../../values.ts'
import { patternFault, patternSize } from './patterns.ts'

/** Names of OpenAI's moderation (developers.openai.com/docs/guides/moderation). */
export const moderationCategories = [
  'harassment',
  'harassment/threatening',
  'hate',
  'hate/threatening',
  'illicit',
  'illicit/violent',
  'self-harm',
  'self-harm/intent',
  'self-harm/instructions',
  'sexual',
  'sexual/minors',
  'violence',
  'violence/graphic',
] as const
export const Category = z
  .string()
  .refine((name) => (moderationCategories as readonly string[]).includes(name) || /^custom\/[a-z0-9][a-z0-9-]{0,62}$/.test(name), {
    message: `must be one of ${moderationCategories.join(', ')}, or custom/ and words of lower-case letters, digits and dashes`,
  })

/** From the mildest to the strictest: of several, the last one counts. */
export const actions = ['allow', 'flag', 'blur', 'block'] as const
export const Action = z.enum(actions)
export type Action = z.infer<typeof Action>
const Firm = Action.exclude(['allow'])
const firm = Firm.options

/** The score from which each action is taken. */
const Limits = z
  .strictObject({ flag: Fraction, blur: Fraction, block: Fraction })
  .partial()
  .refine((limits) => firm.some((action) => limits[action] !== undefined), { message: 'must say a score for flag, blur or block' })
  .refine(({ flag = 0, blur, block = 1 }) => flag <= (blur ?? block) && (blur ?? flag) <= block, {
    message: 'must not rise from block to flag: block needs the highest score, flag the lowest',
  })
export type Limits = z.infer<typeof Limits>

/** What always blocks: no policy can raise its limit or take it away. */
export const minors = 'sexual/minors'
export const minorsLimit = 0.5

/** A score of at least so much. */
export const Condition = z.strictObject({ category: Category, atLeast: Fraction })
export type Condition = z.infer<typeof Condition>

const Name = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'must be words of lower-case letters and digits, joined by dashes, at most 63 characters')
export const PolicyName = Name

const mostConditions = 16
const Pattern = z
  .string()
  .min(1)
  .max(200)
  .superRefine((pattern, context) => {
    const fault = patternFault(pattern)
    if (fault !== undefined) context.addIssue({ code: 'custom', message: fault })
  })

/**
 * A rule of one's own: its action is taken when all that it names is so. `any` and `words`: one of them is enough.
 * `words` and `pattern` look at the prompts, in any case; without a condition on scores the rule needs no picture.
 */
export const Rule = z
  .strictObject({
    name: Name,
    action: Firm,
    all: z.array(Condition).min(1).max(mostConditions).optional(),
    any: z.array(Condition).min(1).max(mostConditions).optional(),
    words: z.array(z.string().trim().min(1).max(100)).min(1).max(200).optional().meta({ description: 'whole words or phrases' }),
    pattern: Pattern.optional().meta({ description: 'RE2 syntax: no look-around, no back-references' }),
    keys: z.array(z.string().min(1).max(64)).min(1).max(100).optional().meta({ description: 'only for these API keys' }),
  })
  .refine(({ all, any, words, pattern }) => all !== undefined || any !== undefined || words !== undefined || pattern !== undefined, {
    message: 'must name scores (all, any), words or a pattern',
  })
export type Rule = z.infer<typeof Rule>

const mostRules = 200
/** Instructions of all patterns: they bound the time that a prompt takes. */
const mostInstructions = 1000

/** One version of a policy, as an operator writes it. */
export const Policy = z
  .strictObject({
    classifiers: z
      .array(ModelName)
      .min(1, 'must name at least one classifier')
      .max(4, 'must name at most 4 classifiers')
      .meta({ description: 'all of them look at each picture; of a category that several know the highest score counts' }),
    categories: z.record(Category, Limits).default({}),
    rules: z.array(Rule).max(mostRules, `must be at most ${mostRules} rules`).default([]),
    allowUnchecked: z.boolean().default(false).meta({
      description: 'whether a picture passes that no classifier could look at; its receipt then says so',
    }),
    blockedForS: z.int().min(0).max(3600).default(3600).meta({
      description: 'how long callers with the scope operate can see a blocked picture, seconds',
    }),
    note: z.string().max(2000).default('').meta({ description: 'why it is so, for people' }),
  })
  .superRefine(({ rules, categories, classifiers }, context) => {
    const no = (path: (string | number)[], message: string): void => context.addIssue({ code: 'custom', path, message })
    const names = rules.map(({ name }) => name)
    for (const [i, name] of names.entries()) if (names.indexOf(name) !== i) no(['rules', i, 'name'], `there is another rule ${name}`)
    for (const [i, name] of classifiers.entries()) if (classifiers.indexOf(name) !== i) no(['classifiers', i], 'stands twice')
    if (Object.keys(categories).length > 64) no(['categories'], 'must be at most 64')
    const own = categories[minors]
    if (own && (own.flag !== undefined || own.blur !== undefined || (own.block ?? 0) > minorsLimit))
      no(['categories', minors], `can only be blocked, from a score of ${minorsLimit} or less`)
    const size = rules.reduce((sum, { pattern }) => sum + (pattern === undefined ? 0 : patternSize(pattern)), 0)
    if (size > mostInstructions) no(['rules'], `have patterns of ${size} instructions together; ${mostInstructions} are the most`)
    if (Object.keys(categories).length === 0 && rules.length === 0) no(['categories'], 'must name a category, where there is no rule')
  })
export type Policy = z.infer<typeof Policy>

export const PolicyRef = z.strictObject({ name: PolicyName, version: z.int().min(1) })
export type PolicyRef = z.infer<typeof PolicyRef>

/** What of a rule is left to be seen in a picture, once prompts and key are known. */
export const AppliedRule = z.strictObject({
  name: z.string(),
  action: Firm,
  all: z.array(Condition).optional(),
  any: z.array(Condition).optional(),
})

/** A classifier as a session is pinned to it; its body hash is null until a step has hashed it. */
export const ClassifierPin = z.strictObject({ id: z.string(), bodyHash: Sha256.nullable() })

/** A policy as it applies to one request: what there is left to ask of a picture. */
export const AppliedPolicy = PolicyRef.extend({
  classifiers: z.array(ClassifierPin),
  /** Named by the policy and not there: only one that allows unchecked pictures is applied so. */
  missing: z.array(z.string()).optional(),
  categories: z.record(z.string(), z.strictObject({ flag: Fraction, blur: Fraction, block: Fraction }).partial()),
  rules: z.array(AppliedRule),
  allowUnchecked: z.boolean(),
  blockedForS: z.int(),
})
export type AppliedPolicy = z.infer<typeof AppliedPolicy>

/** Index in `actions`: the higher, the stricter. */
export const strictness = (action: Action): number => actions.indexOf(action)
export const strictest = (all: readonly Action[]): Action =>
  all.reduce<Action>((most, action) => (strictness(action) > strictness(most) ? action : most), 'allow')
