/**
 * Policies of content safety: versions that never change, which of them is in force, and for whom. In Redis, asked at
 * each submit, so what was activated or rolled back counts for the next one.
 */
import { safetyError } from '../domains/postprocessing/safety/errors.ts'
import { Policy, type PolicyRef } from '../domains/postprocessing/safety/policy.ts'
import { keys } from '../keys.ts'
import { runScript, translated, type Redis } from '../redis.ts'

/** So many policies, versions of one, and callers with a policy of their own. */
const mostPolicies = 200
const mostVersions = 1000
const mostApplied = 1000
/** Changes of one policy that are remembered; so often it can be rolled back. */
const mostChanges = 100

export interface PolicyVersion extends PolicyRef {
  policy: Policy
  createdAt: number
  /** The API key that wrote it; null: this machine's user. */
  createdBy: string | null
}

export interface PolicyChange {
  at: number
  by: string | null
  change: 'activated' | 'rolled back'
  version: number
}

export interface PolicyRecord {
  name: string
  newest: number
  /** In force; null where none is yet. */
  active: number | null
  /** `default`, and `key:<id>`. */
  appliesTo: string[]
}

/** Everybody who has no policy of their own. */
export const everybody = 'default'
export const ofKey = (keyId: string): string => `key:${keyId}`

export class Policies {
  readonly #redis: Redis

  constructor(redis: Redis) {
    this.#redis = redis
  }

  /** Writes the next version; it does not apply before it is activated. @throws DarkroomError `safety.policies_full` */
  async add(name: string, policy: Policy, by: string | null): Promise<PolicyVersion> {
    const version = { policy, createdAt: Date.now(), createdBy: by }
    const [is, number] = await runScript(this.#redis, 'addPolicy', keys.policies(), [
      name,
      JSON.stringify(version),
      mostPolicies,
      mostVersions,
    ])
    if (is === 'full')
      throw safetyError('policies_full', `there are ${mostPolicies} policies, or ${mostVersions} versions of ${name}, already`, {
        field: 'name',
      })
    return { name, version: Number(number), ...version }
  }

  /** By name. */
  async list(): Promise<PolicyRecord[]> {
    const [newest, active, applied] = await Promise.all([
      translated(this.#redis.hgetall(keys.policies())),
      translated(this.#redis.hgetall(keys.activePolicies())),
      translated(this.#redis.hgetall(keys.appliedPolicies())),
    ])
    return Object.keys(newest)
      .toSorted()
      .map((name) => ({
        name,
        newest: Number(newest[name]),
        active: active[name] === undefined ? null : Number(active[name]),
        appliesTo: Object.keys(applied)
          .filter((who) => applied[who] === name)
          .toSorted(),
      }))
  }

  /** @throws DarkroomError `safety.policy_unknown` */
  async record(name: string): Promise<PolicyRecord> {
    const found = (await this.list()).find((each) => each.name === name)
    if (!found) throw unknownPolicy(name)
    return found
  }

  /** The latest changes, newest first. */
  async changes(name: string): Promise<PolicyChange[]> {
    const texts = await translated(this.#redis.lrange(keys.policyChanges(name), 0, mostChanges - 1))
    return texts.map((text) => JSON.parse(text) as PolicyChange)
  }

  /** @throws DarkroomError `safety.policy_unknown` */
  async version(name: string, version: number, field?: string): Promise<PolicyVersion> {
    const text = await translated(this.#redis.hget(keys.policyVersions(), `${name}@${version}`))
    if (text === null) throw unknownPolicy(name, version, field)
    const { policy, ...rest } = JSON.parse(text) as Omit<PolicyVersion, 'name' | 'version'>
    return { name, version, ...rest, policy: Policy.parse(policy) }
  }

  /** The version in force; null where none is yet. @throws DarkroomError `safety.policy_unknown` */
  async active(name: string, field?: string): Promise<PolicyVersion | null> {
    const version = await translated(this.#redis.hget(keys.activePolicies(), name))
    if (version !== null) return this.version(name, Number(version))
    if ((await translated(this.#redis.hexists(keys.policies(), name))) === 0) throw unknownPolicy(name, undefined, field)
    return null
  }

  /**
   * Has a version apply from now on. `instead`: the version that must be in force now, null for none.
   * @throws DarkroomError `safety.policy_unknown`, `safety.policy_conflict`
   */
  activate(name: string, version: number, by: string | null, instead?: number | null): Promise<PolicyVersion> {
    return this.#change(name, version, by, instead)
  }

  /** Has the version before apply again. @throws DarkroomError `safety.nothing_before`, and as `activate` */
  rollBack(name: string, by: string | null, instead?: number | null): Promise<PolicyVersion> {
    return this.#change(name, null, by, instead)
  }

  async #change(name: string, version: number | null, by: string | null, instead?: number | null): Promise<PolicyVersion> {
    const [is, found] = await runScript(this.#redis, 'activatePolicy', keys.policies(), [
      name,
      version ?? '',
      Date.now(),
      JSON.stringify(by),
      mostChanges,
      instead === undefined ? '' : (instead ?? 0),
    ])
    if (is === 'unknown') throw unknownPolicy(name, version ?? undefined)
    if (is === 'nothing') throw safetyError('nothing_before', `no version of policy ${name} was in force before this one`)
    if (is === 'changed') {
      const now = Number(found) === 0 ? 'no version' : `version ${found}`
      throw safetyError('policy_conflict', `${now} of policy ${name} is in force, and not ${instead ?? 'none'}`, { field: 'instead' })
    }
    return this.version(name, Number(found))
  }

  /**
   * Has a policy apply to everybody, or to an API key in place of that; null takes it away.
   * @throws DarkroomError `safety.policy_unknown`, `safety.policy_inactive`, `safety.policies_full`
   */
  async apply(who: string, name: string | null): Promise<void> {
    const [is] = await runScript(this.#redis, 'applyPolicy', keys.policies(), [who, name ?? '', mostApplied])
    if (is === 'unknown') throw unknownPolicy(name ?? '', undefined, 'policy')
    if (is === 'inactive') throw inactive(name ?? '', 'policy')
    if (is === 'full') throw safetyError('policies_full', `${mostApplied} API keys have a policy of their own already`)
  }

  /**
   * The versions that judge what this caller asks for now: its own policy, else everybody's, and the one it names. A
   * named policy adds to the others, so it can only be stricter.
   * @throws DarkroomError `safety.policy_unknown`, `safety.policy_inactive`
   */
  async forRequest(keyId: string | null, named: string | undefined, field: string): Promise<PolicyVersion[]> {
    const [general = null, own = null] = await translated(
      this.#redis.hmget(keys.appliedPolicies(), everybody, ...(keyId === null ? [] : [ofKey(keyId)])),
    )
    const names = [...new Set([own ?? general, named ?? null])].filter((name) => name !== null)
    return Promise.all(names.map((name) => this.named(name, undefined, field)))
  }

  /** A version; without a number the one in force. @throws DarkroomError `safety.policy_unknown`, `.policy_inactive` */
  async named(name: string, version: number | undefined, field: string): Promise<PolicyVersion> {
    const found = version === undefined ? await this.active(name, field) : await this.version(name, version, field)
    if (!found) throw inactive(name, field)
    return found
  }
}

const inactive = (name: string, field: string) =>
  safetyError('policy_inactive', `no version of policy ${name} has been activated`, { field })

function unknownPolicy(name: string, version?: number, field?: string) {
  const what = `policy ${JSON.stringify(name.slice(0, 64))}`
  const message = version === undefined ? `there is no ${what}` : `there is no version ${version} of ${what}`
  return safetyError('policy_unknown', message, field === undefined ? {} : { field })
}
