/** Sessions that go on from another: a retry from the last recorded state, a fork from any. */
import type { ArtifactStore } from '../artifacts/store.ts'
import { sessionError, unknownSession } from '../errors.ts'
import type { Workflow } from '../workflows/index.ts'
import { completed, type Completed, type CompletionParts } from './completion.ts'
import type { ItemReads } from './item-reads.ts'
import type { OwnWorkflows } from './own-workflows.ts'
import type { Reads } from './reads.ts'
import type { Registry } from './registry.ts'
import { isSameState, partingOf, statesOf, type Entry, type RecordedState } from './replay.ts'
import { ended, type Asker, type ForkRequest, type ForkedFrom, type Session } from './session.ts'
import type { Checkpoint } from './store.ts'
import type { GoingOn, Submissions } from './submit.ts'
import type { Document, PureMachine } from './transition.ts'

export interface AgainParts extends CompletionParts {
  reads: Reads
  registry: Registry
  ownWorkflows: OwnWorkflows
  submissions: Submissions
  items: ItemReads
  artifacts: ArtifactStore
}

/** A recorded state, as clients see it. */
export interface StateInfo {
  entry: number
  at: number
  value: unknown
  /** Steps and child sessions that are open in it. */
  open: string[]
  /** Calls of its open denoise steps whose checkpoints are kept. */
  calls: number[]
}

/** A session with all that happened to it. */
interface Past {
  workflow: Workflow
  machine: PureMachine
  first: Document
  history: Entry[]
  states: RecordedState[]
}

/** Most entries that a history has. */
const maxHistory = 10_000

export class Again {
  readonly #parts: AgainParts

  constructor(parts: AgainParts) {
    this.#parts = parts
  }

  /**
   * A new session that goes on from the last recorded state of a failed or cancelled one. Returns its id.
   * @throws DarkroomError `session.not_retryable`, `session.unknown`, `session.idempotency_mismatch`,
   * `workflow.unknown`, `workflow.changed`, `redis.full`, `disk.full`
   */
  async retry(old: Session, asker: Asker): Promise<string> {
    const { reads, submissions } = this.#parts
    const items = await this.#parts.items.unfinished(old)
    if (old.status !== 'failed' && old.status !== 'cancelled' && !items)
      throw sessionError('not_retryable', `session ${old.id} is ${old.status}`)
    const { status, before, snapshot } = await reads.fields(old.id, 'status', 'before', 'snapshot')
    if (status === null) throw unknownSession(old.id)
    const { workflow, machine } = await this.#known(old.workflow)
    const document = JSON.parse(before ?? snapshot ?? 'null') as Document | null
    if (!document) throw sessionError('not_retryable', `session ${old.id} never began`)
    // Of one that was final at its start there is no state to go on from, and of one that is undone none that is true;
    // items are other ones, of a new beginning.
    const isBegun = document.status === undefined && !document.undo && !items
    return submissions.goOn(old, asker, {
      again: isBegun ? machine.restart(document, 1) : submissions.first(workflow, old.input),
      input: old.input,
      pictures: [],
      items,
      about: { retryOf: old.id },
      fields: { retryOf: old.id, ...(isBegun && { exactnessKey: old.exactnessKey }) },
      carried: { from: old.id, as: 'retry', scratch: [], checkpoint: undefined },
    })
  }

  /**
   * A new session that goes on from any recorded state, with the same input or a changed one. Returns its id.
   * @throws DarkroomError `session.not_forkable`, `session.checkpoint_gone`, `session.unknown`,
   * `session.idempotency_mismatch`, `workflow.unknown`, `workflow.changed`, whatever a changed input is refused with,
   * `redis.full`, `disk.full`
   */
  async fork(old: Session, { from = {}, input: changes }: ForkRequest, asker: Asker): Promise<string> {
    const { registry, submissions, reads, artifacts } = this.#parts
    // A repeat gets the same answer, also when what it began from has gone on.
    const made = await submissions.madeBefore(old, asker)
    if (made !== undefined) return made
    if (old.progress?.items)
      throw sessionError('not_forkable', `session ${old.id} works off items: retry those that have not succeeded, or submit it anew`)
    const past = await this.#past(old)
    const { machine, workflow, first, history } = past
    const chosen = this.#chosen(old, past, from)
    const { input, pictures } = changes ? await this.#changed(old, workflow, changes, asker) : { input: old.input, pictures: [] }
    const other = changes ? submissions.first(workflow, input).document : first
    const parting = partingOf(
      machine,
      first,
      other,
      history.filter(({ id }) => id <= chosen.entry),
    )
    if (parting.document.status !== undefined) throw sessionError('not_forkable', `session ${old.id} has ended by entry ${parting.entry}`)
    const undone = old.status === 'failed' || old.status === 'cancelled' ? parting.taken.find((step) => step in workflow.undo) : undefined
    if (undone !== undefined)
      throw sessionError('not_forkable', `what ${undone} had done by entry ${parting.entry} was undone when session ${old.id} ended`, {
        field: 'from.entry',
      })
    const again = machine.restart(parting.document, 1)
    const checkpoint = from.call === undefined ? undefined : await this.#checkpoint(old, chosen, parting.document, from.call)
    const named = hashesIn(parting.document)
    const references = (await reads.references(old.id)).filter((sha256) => named.has(sha256))
    // What one step has left for the next is kept from now on, if it is there still.
    const tensors = [...named].filter((sha256) => !references.includes(sha256))
    const present = await Promise.all(tensors.map((sha256) => artifacts.refresh(sha256)))
    const forkOf: ForkedFrom = { session: old.id, entry: parting.entry, call: from.call ?? null, step: parting.step }
    const isDrawn = parting.taken.some((step) => registry.operations[step]?.lane === 'gpu') || checkpoint !== undefined
    return submissions.goOn(old, asker, {
      again,
      input,
      pictures: [...new Set([...pictures, ...references])],
      about: { forkOf },
      fields: {
        forkOf: JSON.stringify(forkOf),
        // What was drawn on one hardware class goes on there.
        ...(isDrawn && { exactnessKey: old.exactnessKey }),
      },
      carried: { from: old.id, as: 'fork', scratch: tensors.filter((_, i) => present[i]), checkpoint },
    })
  }

  /**
   * The states that a session can be forked from, oldest first.
   * @throws DarkroomError `session.not_forkable`, `workflow.unknown`
   */
  async states(session: Session): Promise<StateInfo[]> {
    const { states } = await this.#past(session)
    const last = states.at(-1)
    const calls = last && !ended.has(session.status) ? await this.#calls(session.id, last.document) : []
    return states.map((state) => ({
      entry: state.entry,
      at: state.at,
      value: state.document.value,
      open: Object.values(state.document.effects).flatMap((effect) =>
        'step' in effect ? [effect.step] : 'session' in effect ? [effect.session] : [],
      ),
      calls: state === last ? calls.map(({ checkpoint }) => checkpoint.call) : [],
    }))
  }

  async #known(id: string): Promise<{ workflow: Workflow; machine: PureMachine }> {
    const { registry, ownWorkflows } = this.#parts
    await ownWorkflows.use(id)
    return registry.known(id)
  }

  /** @throws DarkroomError `session.not_forkable` when its history does not lead to where it stands */
  async #past(session: Session): Promise<Past> {
    const { reads, submissions } = this.#parts
    const { id } = session
    const { workflow, machine } = await this.#known(session.workflow)
    // Read before the history, so that the history leads at least as far.
    const { snapshot, begun, before } = await reads.fields(id, 'snapshot', 'begun', 'before')
    const history = await reads.history(id, 0, maxHistory)
    if (snapshot === null || snapshot === 'null') throw sessionError('not_forkable', `session ${id} never began`)
    if (begun === null && session.retryOf !== null)
      throw sessionError('not_forkable', `session ${id} is a retry of ${session.retryOf} by a version that did not record its beginning`)
    const first = begun === null ? submissions.first(workflow, session.input).document : (JSON.parse(begun) as Document)
    const states = [...statesOf(machine, first, history)]
    const stands = [before, snapshot].flatMap((text) => (text === null ? [] : [JSON.parse(text) as Document]))
    if (!stands.some((document) => states.some((state) => isSameState(state.document, document))))
      throw sessionError(
        'not_forkable',
        `the workflow ${session.workflow} has changed since session ${id} ran: its history leads elsewhere`,
      )
    return { workflow, machine, first, history, states }
  }

  /** @throws DarkroomError `session.not_forkable` */
  #chosen({ id }: Session, { states }: Past, { entry, call }: NonNullable<ForkRequest['from']>): RecordedState {
    const open = states.filter(({ document }) => document.status === undefined)
    const chosen = entry === undefined ? open.at(-1) : states.findLast((state) => state.entry <= entry)
    if (!chosen) throw sessionError('not_forkable', `session ${id} was final at its start`, { field: 'from.entry' })
    if (call !== undefined && chosen !== open.at(-1))
      throw sessionError('not_forkable', `the calls of a step are kept in the latest state alone, which is entry ${open.at(-1)?.entry}`, {
        field: 'from.call',
      })
    return chosen
  }

  /** The input with what is to be another; what does not follow from the changes stays as it was. */
  async #changed(old: Session, workflow: Workflow, changes: Record<string, unknown>, asker: Asker): Promise<Completed> {
    const requester = { keyId: asker.keyId, device: old.device, mayOperate: asker.mayOperate }
    const asked = workflow.asked(old.input)
    const whole = await completed(this.#parts, workflow, { ...asked, ...changes }, requester)
    // What the unchanged request would be made into now, to tell what follows from the changes.
    const { input: unchanged } = await completed(this.#parts, workflow, asked, requester)
    const isOther = (field: string): boolean => JSON.stringify(whole.input[field]) !== JSON.stringify(unchanged[field])
    const fields = new Set([...Object.keys(whole.input), ...Object.keys(old.input)])
    const kept = [...fields].map((field): [string, unknown] => [field, isOther(field) ? whole.input[field] : old.input[field]])
    return { input: Object.fromEntries(kept.filter(([, value]) => value !== undefined)), pictures: whole.pictures }
  }

  /**
   * The checkpoint of this call, for the step of the new session that goes on from it.
   * @throws DarkroomError `session.checkpoint_gone`; `session.not_forkable` when that step is asked for something else
   */
  async #checkpoint(
    { id, status }: Session,
    { document }: RecordedState,
    forked: Document,
    call: number,
  ): Promise<NonNullable<GoingOn['carried']['checkpoint']>> {
    const kept = ended.has(status) ? [] : await this.#calls(id, document)
    const found = kept.find(({ checkpoint }) => checkpoint.call === call)
    const calls = kept.map(({ checkpoint }) => checkpoint.call)
    if (!found)
      throw sessionError(
        'checkpoint_gone',
        `session ${id} keeps ${calls.length > 0 ? `calls ${calls.join(', ')}` : 'no call'}, not ${call}`,
        {
          field: 'from.call',
        },
      )
    const [mine, theirs] = [forked.effects[found.effect], document.effects[found.effect]]
    if (!mine || !theirs || !isSameState({ ...forked, effects: { step: mine } }, { ...forked, effects: { step: theirs } }))
      throw sessionError(
        'not_forkable',
        'the changed input asks the step for something else, so its calls do not count; leave out `call`',
        {
          field: 'input',
        },
      )
    const suffix = `1.${Object.keys(forked.effects).indexOf(found.effect)}`
    return { suffix, ofSuffix: found.suffix, json: found.json }
  }

  /** Kept checkpoints of the open steps, newest first. */
  async #calls(id: string, { effects }: Document): Promise<{ effect: string; suffix: string; json: string; checkpoint: Checkpoint }[]> {
    const open = Object.entries(effects).filter(([, effect]) => 'step' in effect)
    const found = await Promise.all(
      open.map(async ([effect, { suffix }]) => {
        const texts = await this.#parts.reads.checkpoints(`${id}.${suffix}`)
        return texts.map((json) => ({ effect, suffix, json, checkpoint: JSON.parse(json) as Checkpoint }))
      }),
    )
    return found.flat()
  }
}

/** Everything in a state that looks like the name of an artifact. */
const hashesIn = (document: Document): Set<string> => new Set(JSON.stringify(document).match(/\b[0-9a-f]{64}\b/g) ?? [])
