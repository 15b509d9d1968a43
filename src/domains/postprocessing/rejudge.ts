import { z } from 'zod'
import type { ArtifactStore } from '../../artifacts/store.ts'
import { operation } from '../operation.ts'
import { Fraction, Sha256 } from '../values.ts'
import { applied, judged, promptsOf, unscored, type Asked } from './safety/judge.ts'
import { CategoryScores, Classifiers, keepScores, keptScores, scoresOf } from './safety/judgement.ts'
import { Action, Policy, PolicyRef, strictness } from './safety/policy.ts'
import { readRequest } from './texts/index.ts'

/** Pictures that are judged in one step. */
export const mostRejudged = 64

/** A version of a policy, whole. */
export const PolicyText = PolicyRef.extend({ policy: Policy })
export type PolicyText = z.infer<typeof PolicyText>

/** What a policy says of a picture now. `was`: what one had done with it; `action`: null where it cannot be judged. */
export const Rejudged = z.strictObject({
  sha256: Sha256,
  was: Action.nullable(),
  action: Action.nullable(),
  rule: z.string().nullable(),
  score: Fraction.nullable(),
  passes: z.string().nullable(),
  /** Why it cannot be judged. */
  why: z.string().nullable(),
})
export type Rejudged = z.infer<typeof Rejudged>

/**
 * Judges pictures by scores: those that are kept beside them, or those that are said, which are then kept. Nothing is
 * looked at, and nothing is done with a picture.
 * @throws DarkroomError `artifact.corrupt`, `disk.full`
 */
export const rejudge = operation({
  lane: 'host',
  attempts: 3,
  timeoutMs: 600_000,
  input: z.strictObject({
    /** `problem`: why nobody could look at it. */
    pictures: z
      .array(z.strictObject({ sha256: Sha256, scores: CategoryScores.nullish(), problem: z.string().nullish() }))
      .min(1)
      .max(mostRejudged),
    /** That gave the scores that are said. */
    classifiers: Classifiers.optional(),
    policies: z.tuple([PolicyText], PolicyText),
  }),
  output: z.strictObject({ verdicts: z.array(Rejudged) }),
  async run({ pictures, classifiers = [], policies }, tools) {
    const { artifacts } = tools
    const asksPrompts = policies.some(({ policy }) => policy.rules.some(({ words, pattern }) => words ?? pattern))
    const verdicts: Rejudged[] = []
    for (const { sha256, scores, problem } of pictures) {
      const kept = await keptScores(artifacts, sha256)
      const was = kept?.was ?? null
      if (scores) await keepScores(artifacts, sha256, { scores, classifiers, was })
      const found = scores ?? (problem ? undefined : kept?.scores)
      const texts = asksPrompts ? await textsOf(artifacts, sha256) : []
      const why = problem ?? (found ? 'its file is gone, which says its prompt' : 'nobody has scored it: judge it anew')
      const open = { action: null, rule: null, score: null, passes: null, why }
      verdicts.push({ sha256, was: was?.action ?? null, ...(found && texts ? verdictOf(policies, found, texts) : open) })
      tools.progress({ stage: 'run', call: verdicts.length, calls: pictures.length })
    }
    return { verdicts }
  },
})

/** What the strictest of the policies says: each by the scores of its own classifiers. */
function verdictOf(policies: readonly PolicyText[], scores: CategoryScores, texts: readonly string[]): Omit<Rejudged, 'sha256' | 'was'> {
  const asked: Asked = { texts, keyId: null }
  const all = policies.map(({ name, version, policy }) => {
    const whole = applied({ name, version }, policy, asked, { classifiers: [] })
    const own = scoresOf(scores, policy.classifiers)
    const { action, rule, score, passes } = judged([whole], own)
    const lacking = policy.allowUnchecked ? [] : unscored(whole, own)
    const why = lacking.length > 0 ? `policy ${name} asks for ${lacking.join(', ')}, of which its classifiers have said nothing` : null
    return { action, rule, score, passes, why }
  })
  // What is blocked whatever is lacking, is blocked.
  const strictest = all.reduce((most, each) => (strictness(each.action) > strictness(most.action) ? each : most))
  const open = all.find(({ why }) => why !== null)
  return open && strictest.action !== 'block'
    ? { action: null, rule: null, score: null, passes: null, why: open.why }
    : { ...strictest, why: null }
}

/** The prompts that a picture was drawn with, as far as its file tells; undefined for one that is gone. */
async function textsOf(artifacts: ArtifactStore, sha256: string): Promise<string[] | undefined> {
  if (!(await artifacts.has(sha256))) return undefined
  const { reading } = readRequest(await artifacts.read(sha256))
  return reading ? promptsOf(reading.input) : []
}
