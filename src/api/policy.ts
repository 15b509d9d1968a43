/**
 * Visibility: a key sees its own sessions and allocations, and the allocations of its sessions. An operator, and the
 * user of a machine without keys, see all: also what belongs to a key that is revoked, or is from before the first.
 */
import type { Caller } from '../api-keys.ts'
import type { AllocationView as Allocation } from '../domains/memory/figures/report.ts'
import type { Session } from '../engine/session.ts'
import { unknownSession } from '../errors.ts'
import { sessionIdPattern } from '../keys.ts'
import type { WorkerRecord } from '../farm/record.ts'
import type { EnginePort } from './context.ts'

/** Whether the caller sees what others have. */
export const seesAll = (caller: Caller): boolean => caller.keyId === null || caller.scopes.has('operate')

/** The key whose sessions and pictures the caller sees; null: all. */
export const sightOf = (caller: Caller): string | null => (seesAll(caller) ? null : caller.keyId)

/**
 * The session, if the caller may see it; of another key's session the caller does not even learn that it exists.
 * @throws DarkroomError `session.unknown`.
 */
export async function visibleSession(engine: Pick<EnginePort, 'get'>, id: string, caller: Caller): Promise<Session> {
  const session = sessionIdPattern.test(id) ? await engine.get(id) : undefined
  if (!session || (!seesAll(caller) && session.keyId !== caller.keyId)) throw unknownSession(id)
  return session
}

/** A test whether the caller may see the allocations of an owner, for these owners. An owner is a session or a key. */
export async function visibleOwners(
  caller: Caller,
  owners: readonly string[],
  engine: Pick<EnginePort, 'submittedBy'>,
): Promise<(owner: string) => boolean> {
  const { keyId } = caller
  if (keyId === null || seesAll(caller)) return () => true
  const sessions = [...new Set(owners)].filter((owner) => sessionIdPattern.test(owner))
  const own = await engine.submittedBy(keyId, sessions)
  return (owner) => owner === `key:${keyId}` || own.has(owner)
}

/** Allocations of these workers that the caller may see. */
export async function visibleAllocations(
  workers: readonly WorkerRecord[],
  caller: Caller,
  engine: Pick<EnginePort, 'submittedBy'>,
  isWanted: (allocation: Allocation) => boolean = () => true,
): Promise<Allocation[]> {
  const all = workers.flatMap(({ report }) => report.allocations).filter(isWanted)
  const owners = all.map(({ owner }) => owner)
  const sees = await visibleOwners(caller, owners, engine)
  return all.filter(({ owner }) => sees(owner))
}
