/** The part of a form that speaks of content safety, and the policies that apply to what it asks for. */
import { z } from 'zod'
import { safetyError } from '../../domains/postprocessing/safety/errors.ts'
import { applied, blocksAtOnce, promptsOf, type Asked } from '../../domains/postprocessing/safety/judge.ts'
import { AppliedPolicy, PolicyName, type Policy, type PolicyRef } from '../../domains/postprocessing/safety/policy.ts'
import type { Catalogue } from '../../domains/operation.ts'
import { maxSeed } from '../../domains/values.ts'
import { DarkroomError, invalidFields } from '../../errors.ts'

const mostRedraws = 8

const SafetyInput = z.strictObject({
  policy: PolicyName.optional().describe('a policy that judges the pictures too, besides those that apply anyway'),
  redraws: z
    .int()
    .min(0, 'must be at least 0')
    .max(mostRedraws, `must be at most ${mostRedraws}`)
    .default(0)
    .describe('how often a blocked picture is drawn again, with another seed'),
})

export const safetyFields = { safety: SafetyInput.optional().describe('what policies of content safety do with the pictures') }

/** The policies that judge a session's pictures: pinned at the submit, so a later change is for later sessions. */
export const Safety = z.strictObject({ policies: z.tuple([AppliedPolicy], AppliedPolicy), redraws: z.int() })
export type Safety = z.infer<typeof Safety>

/** Each classifier of the policies once. */
export const classifiersOf = (safety: Pick<Safety, 'policies'> | undefined): AppliedPolicy['classifiers'] => [
  ...new Map((safety?.policies ?? []).flatMap(({ classifiers }) => classifiers).map((each) => [each.id, each])).values(),
]

/** Whether all policies let a picture pass that no classifier could look at. */
export const allowsUnchecked = ({ policies }: Pick<Safety, 'policies'>): boolean => policies.every((policy) => policy.allowUnchecked)

interface Form {
  prompt: string
  hires?: { prompt?: string | undefined } | undefined
  detail?: readonly { prompt?: string | undefined }[] | undefined
  safety?: z.infer<typeof SafetyInput> | undefined
}

/**
 * The policies that apply to a form; nothing where none does.
 * @throws DarkroomError `safety.refused` where a prompt alone blocks it, `safety.unavailable` where a classifier is not
 * there, `safety.policy_unknown`, `safety.policy_inactive`
 */
export async function completeSafety(form: Form, catalogue: Catalogue): Promise<{ safety?: Safety }> {
  const { policy: named, redraws = 0 } = form.safety ?? {}
  const versions = await catalogue.policies(named, 'input.safety.policy')
  const asked = { texts: promptsOf(form), keyId: catalogue.keyId }
  for (const version of versions) checkPrompt(version, asked)
  const [first, ...more] = await Promise.all(versions.map((version) => appliedTo(version, asked, catalogue, 'input.safety')))
  return first ? { safety: { policies: [first, ...more], redraws } } : {}
}

type Version = PolicyRef & { policy: Policy }

function checkPrompt({ policy, name, version }: Version, asked: Asked): void {
  const rule = blocksAtOnce(policy, asked)
  if (rule)
    throw safetyError('refused', `rule ${rule.name} of policy ${name}, version ${version}, refuses this prompt`, { field: 'input.prompt' })
}

/**
 * A policy with its classifiers, as it applies to what is asked.
 * @param field that a refusal names
 * @throws DarkroomError `safety.unavailable` where a classifier is not there
 */
export async function appliedTo(
  { policy, ...ref }: Version,
  asked: Asked,
  catalogue: Pick<Catalogue, 'ofKind'>,
  field: string,
): Promise<AppliedPolicy> {
  const missing: string[] = []
  const classifiers: AppliedPolicy['classifiers'] = []
  for (const name of policy.classifiers) {
    try {
      const { id, bodyHash } = await catalogue.ofKind('classifier', name, field)
      classifiers.push({ id, bodyHash })
    } catch (error) {
      if (!(error instanceof DarkroomError) || error.class === 'transient') throw error
      if (!policy.allowUnchecked)
        throw safetyError('unavailable', `policy ${ref.name} needs its classifier, and nothing passes without: ${error.message}`, {
          field,
          cause: error,
        })
      missing.push(name)
    }
  }
  return applied({ name: ref.name, version: ref.version }, policy, asked, { classifiers, missing })
}

/**
 * Redrawn images have seeds behind that of the last image.
 * @throws DarkroomError `api.invalid`
 */
export function checkRedraws(seed: number, count: number, { redraws = 0 }: { redraws?: number } = {}): void {
  if (seed > maxSeed - count * (redraws + 1) + 1)
    throw invalidFields([{ field: 'input.safety.redraws', message: 'the last redrawn image would have a seed beyond 2^53 - 1' }])
}
