/** One session: its picture, how far it is, what happened on the way. */
import { signal, useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { PictureRequest, Receipt, Session, SessionState } from '../client/types.ts'
import { Again } from './again.tsx'
import { attempt, get, may, quietly, Refusal, request } from './api.ts'
import { Diagram, pathsIn } from './diagram.tsx'
import { entries, follow, ids, note, sessionOf } from './live.ts'
import { Picture } from './picture.tsx'
import { ProgressBar, progressWords } from './progress.tsx'
import { go, linkTo } from './route.ts'
import { act, allows, imagesOf, previewOf, titleOf, verbNames, verbs } from './session-view.ts'
import { Timeline } from './timeline.tsx'
import { atTime, inTime, secondsBetween } from './words.ts'

/** Of the session that is open. */
const receipt = signal<Receipt | null>(null)
const states = signal<readonly SessionState[]>([])
const missing = signal<string | null>(null)

/** An address may hold anything. */
const idPattern = /^\d{1,2}-[0-9a-z]{26}$/

export function SessionRoom({ id }: { id: string }) {
  return idPattern.test(id) ? <Found id={id} /> : <Missing />
}

const Missing = () => <p class="empty">There is no such session. It may have been deleted.</p>

function Found({ id }: { id: string }) {
  useEffect(() => {
    receipt.value = null
    states.value = []
    missing.value = null
    follow(id)
    get<Session>(`/sessions/${id}`).then(note, (error: unknown) => {
      if (error instanceof Refusal && error.document.code === 'session.unknown') missing.value = id
    })
    return () => follow(undefined)
  }, [id])
  const count = entries.value.length
  useEffect(() => {
    const look = (): void => {
      quietly(get<Receipt>(`/sessions/${id}/receipt`).then((told) => (receipt.value = told)))
      quietly(get<{ states: SessionState[] }>(`/sessions/${id}/states`).then((told) => (states.value = told.states)))
    }
    const timer = setTimeout(look, 150)
    return () => clearTimeout(timer)
  }, [id, count])
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
  const place = ids.value.indexOf(session.id)
  const keys = (event: KeyboardEvent): void => {
    if ((event.target as HTMLElement).closest('input,textarea,select,dialog,.stage')) return
    const by = event.key === 'ArrowLeft' ? -1 : event.key === 'ArrowRight' ? 1 : 0
    const other = by === 0 ? undefined : ids.value[place + by]
    if (other !== undefined) go('session', other)
  }
  useEffect(() => {
    addEventListener('keydown', keys)
    return () => removeEventListener('keydown', keys)
  })
  return (
    <article class="session" aria-labelledby="session-name">
      <div class="viewer">
        <div class={`sheet ${session.status}`} style={{ '--shape': shown ? shown.width / shown.height : 1 }}>
          {shown ? <Picture shown={shown} alt={title} /> : <span class="no-picture" aria-hidden="true" />}
          {!images.length && shown && <span class="draft">{session.status === 'paused' ? 'draft' : 'preview'}</span>}
        </div>
        {images.length > 1 && (
          <div class="strip" role="group" aria-label="Pictures">
            {images.map((image, i) => (
              <button
                key={image.url}
                type="button"
                aria-pressed={at.value === i}
                aria-label={`Picture ${i + 1}`}
                onClick={() => (at.value = i)}
              >
                <Picture shown={image} alt="" isSmall />
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
          <i class={`dot ${session.status}`} aria-hidden="true" />
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
          {verbs
            .filter((verb) => allows(session, verb))
            .map((verb) => (
              <button
                key={verb}
                type="button"
                class={verb === 'delete' ? 'plain' : undefined}
                onClick={() =>
                  void act(session.id, verb).then((made) => {
                    if (verb === 'delete' && sessionOf(session.id) === undefined) go('table')
                    else if (verb === 'retry' && made) go('session', made.id)
                  })
                }
              >
                {verbNames[verb]}
              </button>
            ))}
          {may('submit') && session.workflow.startsWith('image-generation@') && (
            <button type="button" class="main" onClick={() => (isAgain.value = true)}>
              Use again
            </button>
          )}
          {images[at.value] && (
            <a class="button" href={images[at.value]?.url ?? ''} download={`${session.id}-${at.value + 1}.png`}>
              Download
            </a>
          )}
        </div>
        <Essentials session={session} />
        <Diagram session={session} states={states.value} />
        <States session={session} />
        {receipt.value && <Timeline receipt={receipt.value} />}
        <Events />
        <details>
          <summary>Request and receipt</summary>
          <pre>{JSON.stringify(session.input, null, 2)}</pre>
          <pre>{JSON.stringify(receipt.value, null, 2)}</pre>
        </details>
      </div>
      {isAgain.value && <Again request={() => requestOf(session, at.value)} close={() => (isAgain.value = false)} />}
    </article>
  )
}

function Neighbour({ id, name }: { id: string | undefined; name: string }) {
  return id === undefined ? null : <a href={linkTo('session', id)}>{name}</a>
}

function lasted({ createdAt, startedAt, endedAt, status }: Session): string {
  const took = startedAt === null ? '' : `${status === 'succeeded' ? 'in' : 'after'} ${inTime(secondsBetween(startedAt, endedAt))}`
  return [took, atTime(createdAt)].filter(Boolean).join(' · ')
}

const told = ['model', 'width', 'height', 'steps', 'guidance', 'sampler', 'schedule', 'seed', 'count'] as const

function Essentials({ session: { input, tags, workflow, device } }: { session: Session }) {
  const { width, height, ...rest } = Object.fromEntries(told.map((name) => [name, input[name]]))
  const facts: [string, unknown][] = [
    ...Object.entries({ ...(width !== undefined && { size: [width, height].join(' × ') }), ...rest }),
    ['without', input['negativePrompt']],
    ['device', device],
    ['tags', tags.join(', ')],
    ['workflow', workflow],
  ]
  return (
    <dl class="essentials">
      {facts.flatMap(([name, value]) =>
        typeof value === 'string' || typeof value === 'number'
          ? value === ''
            ? []
            : [
                <div key={name}>
                  <dt>{name}</dt>
                  <dd>{value}</dd>
                </div>,
              ]
          : [],
      )}
    </dl>
  )
}

/** Where it was, and the way to go on from there another time. */
function States({ session: { id } }: { session: Session }) {
  if (!may('submit') || states.value.length === 0) return null
  const fork = async (form: HTMLFormElement, entry: number): Promise<void> => {
    const said = new FormData(form).get('input')
    const changed = typeof said === 'string' ? said.trim() : ''
    const made = await attempt(async () => {
      const input = changed === '' ? {} : { input: JSON.parse(changed) as unknown }
      return request<Session>('POST', `/sessions/${id}/fork`, { from: { entry }, ...input })
    })
    if (made) go('session', made.id)
  }
  return (
    <details>
      <summary>Fork</summary>
      <form onSubmit={(event) => event.preventDefault()}>
        <label class="field">
          <span>What is to be other, as JSON</span>
          <input name="input" placeholder='{"steps": 30}' spellcheck={false} />
        </label>
        <ol class="states">
          {states.value.map(({ entry, value }) => (
            <li key={entry}>
              <span>{pathsIn(value).at(-1)}</span>
              <button type="button" onClick={(event) => event.currentTarget.form && void fork(event.currentTarget.form, entry)}>
                Fork here
              </button>
            </li>
          ))}
        </ol>
      </form>
    </details>
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
  const plain = [
    'model',
    'prompt',
    'negativePrompt',
    'width',
    'height',
    'steps',
    'guidance',
    'sampler',
    'schedule',
    'seed',
    'count',
    'strength',
  ]
  const { picture } = session.input as { picture?: { sha256?: string } }
  return {
    ...Object.fromEntries(plain.flatMap((name) => (name in session.input ? [[name, session.input[name]]] : []))),
    ...(picture?.sha256 !== undefined && { picture: picture.sha256 }),
  }
}
