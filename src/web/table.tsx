/** The light table: every session as its picture. */
import { computed, signal } from './signals.ts'
import { useEffect, useRef } from './view.ts'
import type { Session } from '../client/types.ts'
import { may, quietly } from './api.ts'
import { hasMore, ids, isConnected, loadMore, sessionOf, type SessionSignal } from './live.ts'
import { Picture, Star } from './picture.tsx'
import { ProgressBar, progressWords } from './progress.tsx'
import { linkTo } from './route.ts'
import { isFound, readSearch } from './search.ts'
import { Selection, selected, toggle } from './selection.tsx'
import { imagesOf, pictureOf, starred, titleOf } from './session-view.ts'
import { Dot, Search } from './parts.tsx'
import { Starring, toggleStar } from './verbs.tsx'
import { useGrid } from './virtual-grid.ts'
import { atTime, plural } from './words.ts'

/** Sessions of the list that a search looks through at most. */
const mostSearched = 5000

const line = signal('')
const terms = computed(() => readSearch(line.value))
const shown = computed(() =>
  terms.value.length === 0
    ? ids.value
    : ids.value.filter((id) => {
        const session = sessionOf(id)
        return session !== undefined && isFound(session.value, terms.value)
      }),
)

const shortcuts = ['running', 'queued', 'paused', 'succeeded', 'failed'] as const

/** The search line with the term put into it in place of another of its field, or taken out of it. */
function withTerm(field: 'status' | 'tag', value: string): string {
  const rest = line.value.replace(new RegExp(`\\b${field}:\\S*\\s*`, 'g'), '').trim()
  return isAsked(field, value) ? rest : `${field}:${value} ${rest}`.trim()
}
const isAsked = (field: string, value: string): boolean => terms.value.some((term) => term.field === field && term.value === value)

export function Table() {
  const list = useRef<HTMLUListElement>(null)
  const { from, to, columns, rowHeight, rows } = useGrid(list, shown.value.length)
  const isNearEnd = to >= shown.value.length - 2 * columns
  useEffect(() => {
    if (isNearEnd && hasMore.value && ids.value.length < mostSearched) quietly(loadMore())
  }, [isNearEnd, ids.value.length, hasMore.value])
  const visible = shown.value.slice(from, to)
  return (
    <section class="table" aria-labelledby="table-name">
      <header class="bar">
        <h1 id="table-name" class="sr">
          Light table
        </h1>
        <Search label="Search" placeholder="Search: words, model: status: tag: seed: after:2026-01-31" line={line} />
        <div class="chips" role="group" aria-label="Status">
          {shortcuts.map((status) => (
            <button key={status} aria-pressed={isAsked('status', status)} onClick={() => (line.value = withTerm('status', status))}>
              <Dot of={status} />
              {status}
            </button>
          ))}
          <button aria-pressed={isAsked('tag', starred)} onClick={() => (line.value = withTerm('tag', starred))}>
            <Star /> starred
          </button>
        </div>
        <span class="count" role="status">
          {plural(shown.value.length, 'session')}
          {hasMore.value && ' and more'}
        </span>
      </header>
      <ul
        ref={list}
        class="cards"
        style={{
          '--columns': columns,
          'padding-top': `${Math.floor(from / columns) * rowHeight}px`,
          'min-height': `${rows * rowHeight}px`,
        }}
        onKeyDown={(event) => moveFocus(event, columns)}
      >
        {visible.map((id, i) => {
          const session = sessionOf(id)
          return session && <Card key={id} session={session} place={from + i + 1} of={shown.value.length} />
        })}
      </ul>
      {shown.value.length === 0 && <Empty />}
      <Selection />
    </section>
  )
}

function Empty() {
  if (!isConnected.value) return null
  if (terms.value.length > 0) return <p class="empty">Nothing on the table is like that.</p>
  return (
    <p class="empty">
      The table is empty. <a href={linkTo('draw')}>Draw the first picture</a>
    </p>
  )
}

const step: Record<string, (columns: number) => number> = {
  ArrowLeft: () => -1,
  ArrowRight: () => 1,
  ArrowUp: (columns) => -columns,
  ArrowDown: (columns) => columns,
}

/** Arrow keys go from card to card, space chooses, S stars. */
function moveFocus(event: KeyboardEvent & { currentTarget: HTMLElement }, columns: number): void {
  const link = (event.target as HTMLElement).closest('a')
  if (!link || event.altKey || event.ctrlKey || event.metaKey) return
  if (event.key === ' ') {
    event.preventDefault()
    return toggle(link.dataset['id'] ?? '', event.shiftKey, shown.value)
  }
  const session = event.key === 's' && may('control') && sessionOf(link.dataset['id'] ?? '')?.value
  if (session) return toggleStar(session)
  const by = step[event.key]?.(columns)
  if (by === undefined) return
  event.preventDefault()
  const links = [...event.currentTarget.querySelectorAll<HTMLElement>('a[data-id]')]
  const target = links[links.indexOf(link) + by]
  target?.focus()
  target?.scrollIntoView({ block: 'nearest' })
}

function Card({ session: signalled, place, of }: { session: SessionSignal; place: number; of: number }) {
  const session = signalled.value
  const { id, status } = session
  const title = titleOf(session)
  const { length } = imagesOf(session)
  const isChosen = selected.value.has(id)
  return (
    <li class={`card ${status}`} aria-setsize={of} aria-posinset={place} aria-current={isChosen ? 'true' : undefined}>
      <a href={linkTo('session', id)} data-id={id} aria-label={`${title}, ${status}`}>
        <Sheet session={session} />
        {length > 1 && <span class="several">{length}</span>}
        <ProgressBar session={session} label={`Progress of ${title}`} />
      </a>
      <input
        type="checkbox"
        aria-label={`Choose ${title}`}
        checked={isChosen}
        onClick={(event) => toggle(id, event.shiftKey, shown.value)}
      />
      {may('control') && <Starring session={session} label={`Star ${title}`} look="star plain" />}
      <div class="caption">
        <span class="title">{title}</span>
        <span class="fact">
          <Dot of={status} />
          <span>{factOf(session)}</span>
          <time dateTime={session.createdAt}>{atTime(session.createdAt)}</time>
        </span>
      </div>
    </li>
  )
}

function Sheet({ session }: { session: Session }) {
  const shown = pictureOf(session)
  return session.error && !shown ? <span class="words">{session.error.message}</span> : <Picture shown={shown} isSmall />
}

function factOf(session: Session): string {
  if (session.endedAt === null) return progressWords(session)
  const { input, status } = session
  return status === 'succeeded' && typeof input['seed'] === 'number' ? `seed ${input['seed']}` : status
}
