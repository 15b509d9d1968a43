/** What the steps of a session have done, and how that is undone when it has failed or was cancelled. */
import { DarkroomError } from '../errors.ts'
import { undoSessionId } from '../keys.ts'
import { workflowId } from '../workflows/index.ts'
import type { Committed } from './commit.ts'
import { plan } from './plan.ts'
import type { Reads } from './reads.ts'
import type { Registry } from './registry.ts'
import { indexesOf, type Store } from './store.ts'
import type { Document } from './transition.ts'

export interface UndoingsParts {
  store: Store
  reads: Reads
  registry: Registry
  shards: number
  afterCommit: (committed: Committed) => Promise<void>
}

export class Undoings {
  readonly #parts: UndoingsParts

  constructor(parts: UndoingsParts) {
    this.#parts = parts
  }

  /**
   * Makes the session that undoes what an ended one has done, unless it is there or there is nothing to undo.
   * @param id the ended session
   */
  async begin(id: string): Promise<void> {
    const { store, reads, registry, shards, afterCommit } = this.#parts
    const { snapshot, keyId, device, priority } = await reads.fields(id, 'snapshot', 'keyId', 'device', 'priority')
    const { undo = [] } = JSON.parse(snapshot ?? '{}') as Partial<Document>
    if (undo.length > 0) {
      const { undoing } = registry
      const workflow = workflowId(undoing)
      const own = undoSessionId(id)
      const input = { of: id, steps: undo.toReversed() }
      const transition = registry.known(workflow).machine.start(input, 1)
      const effects = plan(own, transition, { operations: registry.operations, shards, priority: 0 })
      const fields = { keyId, device }
      const reply = await store
        .create({
          id: own,
          idempotency: undefined,
          deadlineMs: undefined,
          carried: { from: id, as: 'undo', scratch: [], checkpoint: undefined },
          entry: { type: 'session.created', workflow, undoOf: id },
          indexes: indexesOf({ workflow, tags: [], keyId, parent: null }),
          pictures: [],
          fields: {
            workflow,
            input: JSON.stringify(input),
            snapshot: JSON.stringify(transition.document),
            tags: '[]',
            priority: priority ?? '5',
            ...(Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null)) as Record<string, string>),
          },
          effects,
          items: [],
          reserve: 0,
          end: undefined,
        })
        .catch(unlessMade)
      if (reply?.created) await afterCommit({ id: own, effects, tellsParent: false })
    }
    await store.forget('outbox', `undo:${id}`)
  }
}

/** The entry is gone: it was made before, or its session was deleted. */
function unlessMade(error: unknown): undefined {
  if (!(error instanceof DarkroomError && error.code === 'session.unknown')) throw error
}
