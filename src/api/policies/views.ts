/** Policies of content safety as HTTP shows them. */
import { z } from 'zod'
import { Policy, PolicyName } from '../../domains/postprocessing/safety/policy.ts'
import { Difference, mostSamples, Sample } from '../../domains/postprocessing/safety/trial.ts'
import type { PolicyChange, PolicyRecord, PolicyVersion } from '../../engine/policies.ts'
import { iso, Time } from '../view.ts'

const Version = z.int().min(1)
const Instead = Version.nullable()
  .optional()
  .meta({ description: 'the version that must be in force now, null for none: otherwise nothing changes' })

export const AddPolicy = z.strictObject({ name: PolicyName, policy: Policy }).meta({ id: 'AddPolicy' })
export const ActivatePolicy = z.strictObject({ version: Version, instead: Instead }).meta({ id: 'ActivatePolicy' })
export const RollBackPolicy = z.strictObject({ instead: Instead }).meta({ id: 'RollBackPolicy' })
export const TryPolicy = z
  .strictObject({
    version: Version,
    against: Version.optional().meta({ description: 'default: the version in force' }),
    samples: z.array(Sample).min(1).max(mostSamples),
  })
  .meta({ id: 'TryPolicy' })
export const ApplyPolicy = z.strictObject({ policy: PolicyName.nullable() }).meta({ id: 'ApplyPolicy' })

export const PolicyVersionView = z
  .strictObject({
    name: z.string(),
    version: Version,
    policy: Policy,
    createdAt: Time,
    createdBy: z.string().nullable().meta({ description: 'the API key that wrote it' }),
  })
  .meta({ id: 'PolicyVersion' })

export const PolicySummary = z
  .strictObject({
    name: z.string(),
    newest: Version,
    active: Version.nullable().meta({ description: 'the version in force; null where none is' }),
    appliesTo: z.array(z.string()).meta({ description: '`default`: everybody without a policy of their own; `key:<id>`: an API key' }),
  })
  .meta({ id: 'PolicySummary' })

export const PolicyList = z.strictObject({ policies: z.array(PolicySummary) })

export const PolicyView = PolicySummary.extend({
  changes: z.array(z.strictObject({ at: Time, by: z.string().nullable(), change: z.enum(['activated', 'rolled back']), version: Version })),
}).meta({ id: 'Policy' })

export const PolicyDifferences = z
  .strictObject({ name: z.string(), from: Version, to: Version, differences: z.array(Difference) })
  .meta({ id: 'PolicyDifferences' })

export const AppliedView = z.strictObject({ who: z.string(), policy: z.string().nullable() }).meta({ id: 'AppliedPolicy' })

export const presentVersion = ({ createdAt, ...version }: PolicyVersion): z.infer<typeof PolicyVersionView> => ({
  ...version,
  createdAt: iso(createdAt),
})

export const presentPolicy = (record: PolicyRecord, changes: readonly PolicyChange[]): z.infer<typeof PolicyView> => ({
  ...record,
  changes: changes.map(({ at, ...change }) => ({ at: iso(at), ...change })),
})
