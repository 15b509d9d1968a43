/** Policies of content safety, as the client asks for them. */
import { queryOf, type Http } from './http.ts'
import type {
  AppliedPolicy,
  Policy,
  PolicyDifferences,
  PolicyDocument,
  PolicySummary,
  PolicyTrial,
  PolicyVersion,
  TryPolicy,
} from './types.ts'

const pathOf = (name: string): string => `/v1/policies/${encodeURIComponent(name)}`

export class PolicyClient {
  readonly #http: Http

  constructor(http: Http) {
    this.#http = http
  }

  /** All of them, by name. */
  async list(): Promise<PolicySummary[]> {
    return (await this.#http.json<{ policies: PolicySummary[] }>('GET', '/v1/policies')).policies
  }

  /** Which version is in force, since when, and for whom. @throws Problem `safety.policy_unknown` */
  get(name: string): Promise<Policy> {
    return this.#http.json('GET', pathOf(name))
  }

  version(name: string, version: number): Promise<PolicyVersion> {
    return this.#http.json('GET', `${pathOf(name)}/versions/${version}`)
  }

  /** Writes the next version, which does not apply before it is activated. */
  add(name: string, policy: PolicyDocument): Promise<PolicyVersion> {
    return this.#http.json('POST', '/v1/policies', { body: { name, policy } })
  }

  /** What a version would do with samples, and what it would change. */
  try(name: string, trial: TryPolicy): Promise<PolicyTrial> {
    return this.#http.json('POST', `${pathOf(name)}/try`, { body: trial })
  }

  compare(name: string, from: number, to: number): Promise<PolicyDifferences> {
    return this.#http.json('GET', `${pathOf(name)}/differences${queryOf({ from, to })}`)
  }

  /** `instead`: the version that must be in force now, null for none. @throws Problem `safety.policy_conflict` */
  activate(name: string, version: number, instead?: number | null): Promise<PolicyVersion> {
    return this.#http.json('POST', `${pathOf(name)}/activate`, { body: { version, ...(instead !== undefined && { instead }) } })
  }

  /** Has the version before apply again. @throws Problem `safety.nothing_before`, `safety.policy_conflict` */
  rollBack(name: string, instead?: number | null): Promise<PolicyVersion> {
    return this.#http.json('POST', `${pathOf(name)}/rollback`, { body: instead === undefined ? {} : { instead } })
  }

  /** Has a policy apply to `default`, everybody, or to an API key by its id; null takes it away. */
  apply(who: string, policy: string | null): Promise<AppliedPolicy> {
    return this.#http.json('PUT', `/v1/policies/applied/${encodeURIComponent(who)}`, { body: { policy } })
  }
}
