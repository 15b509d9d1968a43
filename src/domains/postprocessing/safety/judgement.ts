/** What classifiers and policies said of one picture, and what of that is kept beside it. */
import { z } from 'zod'
import type { ArtifactStore } from '../../../artifacts/store.ts'
import { Fraction, ModelPin } from '../../values.ts'
import { Verdict, type Scores } from './judge.ts'
import { Action, PolicyRef } from './policy.ts'

/** What looks at a picture, pinned. */
export const Classifiers = z.array(ModelPin.pick({ id: true, bodyHash: true }))
export type Classifiers = z.infer<typeof Classifiers>
/** In the order of the classifiers: the score of each category that one knows. */
export const RawScores = z.array(z.array(z.strictObject({ category: z.string(), score: Fraction })).min(1))

/** By category the highest score, and which of the classifiers gave it. */
export const CategoryScores = z.record(z.string(), z.strictObject({ score: Fraction, by: z.string() }))
export type CategoryScores = z.infer<typeof CategoryScores>

/** A verdict with what it follows from. */
export const Judgement = Verdict.extend({ scores: CategoryScores, classifiers: Classifiers })
export type Judgement = z.infer<typeof Judgement>

/** By category the highest of several scores: a picture is as bad as the strictest classifier has it. */
export function highest(classifiers: Classifiers, all: z.infer<typeof RawScores>): CategoryScores {
  const scores = new Map<string, CategoryScores[string]>()
  for (const [i, { id }] of classifiers.entries()) {
    for (const { category, score } of all[i] ?? []) if (score >= (scores.get(category)?.score ?? 0)) scores.set(category, { score, by: id })
  }
  return Object.fromEntries(scores)
}

/** Of these classifiers alone, where some are named. */
export const scoresOf = (scores: CategoryScores, by?: readonly string[]): Scores =>
  Object.fromEntries(
    Object.entries(scores)
      .filter(([, each]) => by === undefined || by.includes(each.by))
      .map(([category, { score }]) => [category, score]),
  )

/** What is kept beside a picture. `was`: what a policy had done with it; null where none has judged it. */
const Kept = z.strictObject({
  scores: CategoryScores,
  classifiers: Classifiers,
  was: z.strictObject({ action: Action, policy: PolicyRef, rule: z.string().nullable() }).nullable(),
})
export type KeptScores = z.infer<typeof Kept>

/** @throws DarkroomError `disk.full` */
export const keepScores = (artifacts: Pick<ArtifactStore, 'putScores'>, sha256: string, kept: KeptScores): Promise<void> =>
  artifacts.putScores(sha256, Buffer.from(JSON.stringify(kept)))

/** Undefined where there are none, or none that can be read. */
export async function keptScores(artifacts: Pick<ArtifactStore, 'readScores'>, sha256: string): Promise<KeptScores | undefined> {
  const bytes = await artifacts.readScores(sha256)
  if (!bytes) return undefined
  try {
    return Kept.parse(JSON.parse(bytes.toString('utf8')))
  } catch {
    // Torn by a crash of the machine: as if nothing had looked at it.
    return undefined
  }
}
