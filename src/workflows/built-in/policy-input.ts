/** The part of a form that says which policies judge a picture that is there, and the classifiers that they need. */
import { z } from 'zod'
import type { PolicyText } from '../../domains/postprocessing/rejudge.ts'
import type { Classifiers } from '../../domains/postprocessing/safety/judgement.ts'
import { PolicyName, type ClassifierPin } from '../../domains/postprocessing/safety/policy.ts'
import type { Catalogue } from '../../domains/operation.ts'
import { invalidFields } from '../../errors.ts'

export const policyFields = {
  policy: PolicyName.optional().describe('the policy that judges; default: those that apply to you'),
  version: z.int().min(1).optional().describe('of that policy, in force or not; default: the one in force'),
}

/**
 * Each with its text, as it is now.
 * @throws DarkroomError `api.invalid` where none is named and none applies; `safety.policy_unknown`, `.policy_inactive`
 */
export async function namedPolicies(
  { policy, version }: z.output<z.ZodObject<typeof policyFields>>,
  catalogue: Pick<Catalogue, 'policies' | 'policy'>,
): Promise<[PolicyText, ...PolicyText[]]> {
  if (policy !== undefined) return [textOf(await catalogue.policy(policy, version, 'input.policy'))]
  if (version !== undefined) throw invalidFields([{ field: 'input.version', message: 'is said of a policy: name that too' }])
  const [first, ...more] = (await catalogue.policies(undefined, 'input.policy')).map(textOf)
  if (!first) throw invalidFields([{ field: 'input.policy', message: 'must be named: no policy applies to you' }])
  return [first, ...more]
}

const textOf = ({ name, version, policy }: PolicyText): PolicyText => ({ name, version, policy })

type Pin = z.infer<typeof ClassifierPin>

/** The next classifier that nobody has hashed. `hashes`: those that were found, by name. */
export const unhashed = (classifiers: readonly Pin[], hashes: Readonly<Record<string, string>>): Pin | undefined =>
  classifiers.find(({ id, bodyHash }) => bodyHash === null && hashes[id] === undefined)

/** Each pinned. */
export const pinsOf = (classifiers: readonly Pin[], hashes: Readonly<Record<string, string>>): Classifiers =>
  classifiers.map(({ id, bodyHash }) => ({ id, bodyHash: bodyHash ?? hashes[id] ?? '' }))
