/** A session about to be written, whatever asked for it: what of it goes into its record. Pure. */
import { sessionError, type DarkroomError } from '../errors.ts'
import { keys, shardOf } from '../keys.ts'
import { type Items, type Workflow } from '../workflows/index.ts'
import type { Creation } from './creation.ts'
import { type Outcome } from './outcome.ts'
import { type Effects } from './plan.ts'
import { itemFields } from './item-record.ts'
import { bytesOfItem } from './reserve.ts'
import type { Session, Submission } from './session.ts'
import { indexesOf } from './store.ts'
import type { Document } from './transition.ts'

/** A session about to be written, whatever asked for it. */
export interface Draft {
  id: string
  /** `name@version`. */
  workflow: string
  input: Record<string, unknown>
  pictures: readonly string[]
  document: Document | null
  effects: Effects
  tags: string[]
  priority: string
  keyId: string | null
  device: string | null
  /** The session whose child it is. */
  parent?: string
  /** More of its first history entry. */
  about?: Record<string, unknown>
  /** Further fields of its record; null: none. */
  fields: Record<string, string | null | undefined>
  reserve: number
  items?: Items | undefined
  end: Outcome | undefined
}

export type CreationMore = Partial<Pick<Creation, 'idempotency' | 'deadlineMs' | 'carried' | 'counted'>>

/** The session as the script writes it. */
export function creationOf(draft: Draft, more: CreationMore): Creation {
  const {
    id,
    workflow,
    input,
    pictures,
    document,
    effects,
    tags,
    priority,
    keyId,
    device,
    parent = null,
    about,
    fields,
    reserve,
    items,
    end,
  } = draft
  const given = { keyId, device, ...fields, ...(items && itemFields(items, bytesOfItem(items))) }
  return {
    idempotency: undefined,
    deadlineMs: undefined,
    carried: undefined,
    ...more,
    id,
    entry: { type: 'session.created', workflow, ...about },
    indexes: indexesOf({ workflow, tags, keyId, parent }),
    pictures,
    fields: {
      workflow,
      input: JSON.stringify(input),
      snapshot: JSON.stringify(document),
      tags: JSON.stringify(tags),
      priority,
      ...(Object.fromEntries(Object.entries(given).filter(([, value]) => typeof value === 'string')) as Record<string, string>),
    },
    effects,
    reserve,
    items: items?.each ?? [],
    end,
  }
}

/** An idempotency key counts for this session alone: what goes on from another lies on that one's shard. */
export const goingOnKey = (old: Session, keyId: string | null, key: string): string =>
  keys.idempotency(shardOf(old.id), keyId, `${old.id}:${key}`)

export const mismatch = (key: string, id: string): DarkroomError =>
  sessionError('idempotency_mismatch', `Idempotency-Key ${key} was used for another body, session ${id}`, { field: 'Idempotency-Key' })

export const groupText = (concurrency: Submission['concurrency'] | null): string | undefined =>
  concurrency ? `${concurrency.key}/${concurrency.limit}` : undefined

/** What the session is promised, as fields of its record. */
export const promises = (workflow: Workflow, input: Record<string, unknown>): Record<string, string> => ({
  ...(workflow.exact && { exact: '1' }),
  ...(workflow.isStrict(input) && { strict: '1' }),
  ...(Object.keys(workflow.undo).length > 0 && { undoes: '1' }),
})
