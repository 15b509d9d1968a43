/** One session: its picture, how far it is, what happened on the way. */
import { signal } from './signals.ts'
import { useEffect, useSignal } from './view.ts'
import type { PictureRequest, Session } from '../client/types.ts'
import { Again } from './again.tsx'
import { attempt, get, may, Refusal } from './api.ts'
import { ForkDialog, point } from './fork.tsx'
import { entries, follow, ids, note, sessionOf } from './live.ts'
import { Dot, Form, textOf, useKeys } from './parts.tsx'
import { Picture } from './picture.tsx'
import { ProgressBar, progressWords } from './progress.tsx'
import { go, linkTo } from './route.ts'
import { imagesOf, plain, previewOf, starred, tag, tagPattern, titleOf } from './session-view.ts'
import { Told } from './told.tsx'
import { Starring, Verbs } from './verbs.tsx'
import { Verify } from './verify.tsx'
import { atTime, inTime, listed, secondsBetween } from './words.ts'

const missing = signal<string | null>(null)

/** An address may hold anything. */
const idPattern = /^\d{1,2}-[0-9a-z]{26}$/

export function SessionRoom({ id }: { id: string }) {
  return idPattern.test(id) ? <Found id={id} /> : <Missing />
}

const Missing = () => <p class="empty">There is no such session. It may have been deleted.</p>

function Found({ id }: { id: string }) {
  useEffect(() => {
    point.value = null
    missing.value = null
    follow(id)
    get<Session>(`/sessions/${id}`).then(note, (error: unknown) => {
      if (error instanceof Refusal && error.document.code === 'session.unknown') missing.value = id
    })
    return () => follow(undefined)
  }, [id])
  // Read again when the list changes: a session that came with its page is there now.
  void ids.value
  const session = sessionOf(id)?.value
  if (missing.value === id) return <Missing />
  return session ? <Whole session={session} /> : <p class="empty">Looking…</p>
}

function Whole({ session }: { session: Session }) {
  const at = useSignal(0)
  const isAgain = useSignal(false)
  const images = imagesOf(session)
  const shown = images[Math.min(at.value, images.length - 1)] ?? previewOf(session)
  const title = titleOf(session)
  const isPicture = session.workflow.startsWith('image-generation@')
  const sha256 = session.output?.images?.[at.value]?.sha256
  const place = ids.value.indexOf(session.id)
  useKeys((event) => {
    if ((event.target as HTMLElement).closest('input,textarea,select,dialog,.stage')) return
    const by = event.key === 'ArrowLeft' ? -1 : event.key === 'ArrowRight' ? 1 : 0
    const other = by === 0 ? undefined : ids.value[place + by]
    if (other !== undefined) go('session', other)
  })
  return (
    <article class="session" aria-labelledby="session-name">
      <div class="viewer">
        <div class={`sheet ${session.status}`} style={{ '--shape': shown ? shown.width / shown.height : 1 }}>
          <Picture shown={shown} alt={title} />
          {!images.length && shown && <span class="draft">{session.status === 'paused' ? 'draft' : 'preview'}</span>}
        </div>
        {images.length > 1 && (
          <div class="strip" role="group" aria-label="Pictures">
            {images.map((image, i) => (
              <button key={image.url} aria-pressed={at.value === i} aria-label={`Picture ${i + 1}`} onClick={() => (at.value = i)}>
                <Picture shown={image} isSmall />
              </button>
            ))}
          </div>
        )}
      </div>
      <div class="facts">
        <nav class="crumbs" aria-label="Neighbours">
          <a href={linkTo('table')}>Table</a>
          <Neighbour id={ids.value[place - 1]} name="Newer" />
          <Neighbour id={place < 0 ? undefined : ids.value[place + 1]} name="Older" />
        </nav>
        <h1 id="session-name">{title}</h1>
        <p class="state" role="status">
          <Dot of={session.status} />
          <strong>{session.status}</strong> {session.endedAt === null ? progressWords(session) : lasted(session)}
        </p>
        <ProgressBar session={session} label="Progress" />
        {session.error && (
          <div class="fault" role="alert">
            <strong>{session.error.message}</strong>
            <span>{session.error.remedy}</span>
            <code>{session.error.code}</code>
          </div>
        )}
        <div class="verbs">
          <Verbs
            session={session}
            told={(verb, made) => {
              if (verb === 'delete' && sessionOf(session.id) === undefined) go('table')
              else if (verb === 'retry' && made) go('session', made.id)
            }}
          />
          {session.workflow.startsWith('batch@') && (
            <a class="button main" href={linkTo('batches', session.id)}>
              Its pictures
            </a>
          )}
          {may('control') && <Starring session={session} label="Star" look="starring" />}
          {may('submit') && isPicture && (
            <button class="main" onClick={() => (isAgain.value = true)}>
              Use again
            </button>
          )}
          {images[at.value] && (
            <a class="button" href={images[at.value]?.url ?? ''} download={`${session.id}-${at.value + 1}.png`}>
              Download
            </a>
          )}
          {images.length > 1 && (
            <a class="button" href={`/v1/sessions/${session.id}/results.zip`} download="">
              All as a file
            </a>
          )}
          <a class="button" href={`/v1/sessions/${session.id}/export`} download="" title="Request, history, receipt and result as JSON">
            Export
          </a>
          {isPicture && sha256 !== undefined && <Verify session={session.id} sha256={sha256} exactnessKey={session.exactnessKey} />}
        </div>
        <Essentials session={session} />
        <Told room="session" id={session.id} changed={entries.value.length} />
        <Tags session={session} />
        <Events />
      </div>
      {isAgain.value && <Again request={() => requestOf(session, at.value)} close={() => (isAgain.value = false)} />}
      {point.value && <ForkDialog />}
    </article>
  )
}

function Neighbour({ id, name }: { id: string | undefined; name: string }) {
  return id === undefined ? null : <a href={linkTo('session', id)}>{name}</a>
}

function lasted({ createdAt, startedAt, endedAt, status }: Session): string {
  const took = startedAt === null ? '' : `${status === 'succeeded' ? 'in' : 'after'} ${inTime(secondsBetween(startedAt, endedAt))}`
  return listed(took, atTime(createdAt))
}

function Essentials({ session: { input, workflow, device } }: { session: Session }) {
  const { prompt: _, width, height, negativePrompt: without, ...rest } = Object.fromEntries(plain.map((name) => [name, input[name]]))
  const facts = { ...rest, size: width !== undefined && [width, height].join(' × '), without, device, workflow }
  return (
    <dl class="essentials">
      {Object.entries(facts).map(
        ([name, value]) =>
          (typeof value === 'number' || (typeof value === 'string' && value !== '')) && (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ),
      )}
    </dl>
  )
}

function Tags({ session }: { session: Session }) {
  if (!may('control')) return null
  const others = session.tags.filter((each) => each !== starred)
  const add = async (said: FormData): Promise<boolean> => {
    const name = textOf(said, 'tag')
    if (name !== '') await attempt(() => tag(session, name, true))
    return true
  }
  return (
    <Form class="chips" aria-label="Tags" act={add}>
      {others.map((each) => (
        <button key={each} aria-label={`Take the tag ${each} away`} onClick={() => void attempt(() => tag(session, each, false))}>
          {each} ×
        </button>
      ))}
      <input name="tag" maxLength={64} pattern={tagPattern} aria-label="Another tag" placeholder="add a tag" />
    </Form>
  )
}

function Events() {
  return (
    <details class="events">
      <summary>Events · {entries.value.length}</summary>
      <ol>
        {entries.value.map(({ id, type, data }) => (
          <li key={id} value={id}>
            <time dateTime={data.at}>{data.at.slice(11, 23)}</time> <b>{type}</b>{' '}
            <span>{typeof data['step'] === 'string' ? data['step'] : ''}</span>
          </li>
        ))}
      </ol>
    </details>
  )
}

/** What its picture tells of its request; of one that has none the request as it was made whole, as far as a form has it. */
async function requestOf(session: Session, at: number): Promise<PictureRequest['input']> {
  const image = session.output?.images?.[at]
  if (image) return (await get<PictureRequest>(`/artifacts/${image.sha256}/request`)).input
  const { picture } = session.input as { picture?: { sha256?: string } }
  return {
    ...Object.fromEntries(plain.flatMap((name) => (name in session.input ? [[name, session.input[name]]] : []))),
    ...(picture?.sha256 !== undefined && { picture: picture.sha256 }),
  }
}
