/** Batches: many pictures asked for at once, and what became of each. */
import { signal } from './signals.ts'
import type { Item, ItemPage, Session, SessionPage } from '../client/types.ts'
import { attempt, get, may, request } from './api.ts'
import { note, sessionOf } from './live.ts'
import { Choices, Dot } from './parts.tsx'
import { Picture } from './picture.tsx'
import { ProgressBar } from './progress.tsx'
import { Room, useLook } from './room.tsx'
import { go, linkTo } from './route.ts'
import { imagesOf, pictureOf } from './session-view.ts'
import { Verbs } from './verbs.tsx'
import { atTime, inTime, listed, plural } from './words.ts'

const ids = signal<readonly string[]>([])
const items = signal<readonly Item[]>([])
const shown = ['', 'waiting', 'running', 'succeeded', 'failed'] as const
const status = signal<(typeof shown)[number]>('')
const pageSize = 200
const shownBatches = 100

async function look(): Promise<void> {
  const { sessions } = await get<SessionPage>(`/sessions?workflow=batch&limit=${shownBatches}`)
  sessions.forEach(note)
  ids.value = sessions.map(({ id }) => id)
}

/** What all its items have in common, in words. */
function nameOf({ input, id }: Session): string {
  const common = input['input'] as { prompt?: unknown } | undefined
  return typeof common?.prompt === 'string' ? common.prompt : id
}

function countsOf({ progress, output }: Session): string {
  const counts = progress?.items ?? (output as unknown as NonNullable<Session['progress']>['items'])
  if (!counts) return ''
  const { total, succeeded, failed, running } = counts
  return listed(`${succeeded} of ${plural(total, 'item')}`, running > 0 && `${running} run`, failed > 0 && `${failed} failed`)
}

export function Batches({ id }: { id: string }) {
  useLook(look, 2000)
  const open = sessionOf(id)?.value
  return (
    <Room
      name="batches"
      title="Batches"
      bar={
        may('submit') && (
          <a class="button" href={linkTo('draw')}>
            Draw a batch
          </a>
        )
      }
    >
      <div class="columns">
        <ul class="rows">
          {ids.value.map((each) => {
            const session = sessionOf(each)?.value
            return (
              session && (
                <li key={each}>
                  <a href={linkTo('batches', each)} aria-current={each === id ? 'page' : undefined}>
                    <span class="name">{nameOf(session)}</span>
                    <small>
                      <Dot of={session.status} /> {session.status} · {countsOf(session)} · {atTime(session.createdAt)}
                    </small>
                  </a>
                </li>
              )
            )
          })}
          {ids.value.length === 0 && <li class="hint">There is none yet.</li>}
        </ul>
        {open && <Open key={id} session={open} />}
      </div>
    </Room>
  )
}

function Open({ session }: { session: Session }) {
  const { id, progress, endedAt } = session
  useLook(
    async () => {
      const told = await get<ItemPage>(`/sessions/${id}/items?limit=${pageSize}${status.value && `&status=${status.value}`}`)
      items.value = told.items
    },
    endedAt === null ? 1500 : 30_000,
    id,
    status.value,
    endedAt,
  )
  const sheet = async (): Promise<void> => {
    const done = await attempt(() => request<{ image?: { sha256: string } }>('POST', `/sessions/${id}/sheet`, {}, { Prefer: 'wait=60' }))
    if (done?.image) open(`/v1/artifacts/${done.image.sha256}`)
  }
  return (
    <article class="panel" aria-labelledby="batch-name">
      <h2 id="batch-name">{nameOf(session)}</h2>
      <p class="hint">
        {session.status} · {countsOf(session)}
        {typeof progress?.etaS === 'number' && endedAt === null && ` · ${inTime(progress.etaS)} left`}
      </p>
      <ProgressBar session={session} label="Progress of the batch" />
      <div class="verbs">
        <Verbs session={session} without={['delete']} told={(verb, made) => verb === 'retry' && made && go('batches', made.id)} />
        <a class="button" href={`/v1/sessions/${id}/results.zip`} download="">
          Download all
        </a>
        {may('submit') && <button onClick={() => void sheet()}>Contact sheet</button>}
        <a class="button" href={linkTo('session', id)}>
          Its session
        </a>
      </div>
      <Choices label="Items" of={shown} chosen={status} all="all" />
      <ol class="items">
        {items.value.map((item) => (
          <Cell key={item.index} item={item} />
        ))}
      </ol>
      {items.value.length === pageSize && <p class="hint">The first {pageSize}; all of them are in the file.</p>}
    </article>
  )
}

function Cell({ item: { index, status: state, session: id, input, output, error } }: { item: Item }) {
  const known = id === null ? undefined : sessionOf(id)?.value
  const picture = imagesOf({ output })[0] ?? (known && pictureOf(known))
  const words = `Item ${index}, ${state}: ${typeof input['prompt'] === 'string' ? input['prompt'] : ''}`
  const inside = <Picture shown={picture} isSmall />
  return (
    <li title={error?.message ?? words}>
      {id === null ? (
        inside
      ) : (
        <a href={linkTo('session', id)} aria-label={words}>
          {inside}
        </a>
      )}
      <small>
        <Dot of={state} /> {index}
      </small>
    </li>
  )
}
