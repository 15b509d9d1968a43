/** Batches: many pictures asked for at once, and what became of each. */
import type { Item } from '../../engine/item-reads.ts'
import { itemStatuses, presentItem } from '../items/views.ts'
import { sightOf, visibleSession } from '../policy.ts'
import { shownSession } from '../sessions/shown.ts'
import type { SessionView } from '../sessions/views.ts'
import type { At } from './at.ts'
import { act, button, div, dot, el, hint, linkTo, listed, ol, plural, room, small, span, time, ul, verbs, type Element } from './markup.ts'

const pageSize = 200
const shownBatches = 100
const choices = ['all', 'waiting', 'running', 'succeeded', 'failed'] as const

export async function batches(at: At): Promise<Element> {
  const { engine, caller, of, may } = at
  const { sessions } = await engine.list({ workflow: 'batch', limit: shownBatches, keyId: sightOf(caller) })
  const all = await Promise.all(sessions.map((session) => shownSession(engine, session)))
  const open = all.find(({ id }) => id === of) ?? (await older(at))
  return room(
    'batches',
    'Batches',
    may('submit') && button(linkTo('draw'), 'Draw a batch'),
    div(
      'columns',
      ul(
        'rows',
        all.map((session) => {
          const { id, status, createdAt } = session
          return el(
            'li',
            { key: id },
            el(
              'a',
              { href: linkTo('batches', id), 'aria-current': id === of ? 'page' : undefined },
              span('name', nameOf(session)),
              small(dot(status), ` ${status} · ${countsOf(session)} · `, time(createdAt)),
            ),
          )
        }),
        all.length === 0 && el('li', { class: 'hint' }, 'There is none yet.'),
      ),
      open && (await panel(open, at)),
    ),
  )
}

/** One that the list does not reach. */
async function older({ engine, caller, of }: At): Promise<SessionView | undefined> {
  const found = await visibleSession(engine, of, caller).catch(() => undefined)
  return found && shownSession(engine, found)
}

/** What all its items have in common, in words. */
function nameOf({ input, id }: SessionView): string {
  const { prompt } = (input['input'] ?? {}) as { prompt?: unknown }
  return typeof prompt === 'string' ? prompt : id
}

function countsOf({ progress, output }: SessionView): string {
  const counts = progress?.items ?? (output as unknown as NonNullable<SessionView['progress']>['items'])
  if (!counts) return ''
  const { total, succeeded, failed, running } = counts
  return listed(`${succeeded} of ${plural(total, 'item')}`, running > 0 && `${running} run`, failed > 0 && `${failed} failed`)
}

async function panel(session: SessionView, { engine, show, may }: At): Promise<Element> {
  const { id, status, progress, endedAt } = session
  const { items } = await engine.items.page(id, { status: itemStatuses.find((each) => each === show), from: 0, limit: pageSize })
  const isOpen = endedAt === null
  return el(
    'article',
    { key: id, class: 'panel', 'aria-labelledby': 'batch-name' },
    el('h2', { id: 'batch-name' }, nameOf(session)),
    hint(
      listed(status, countsOf(session)),
      isOpen && typeof progress?.etaS === 'number' && [' · ', el('Span', { s: progress.etaS }), ' left'],
    ),
    isOpen && progress && el('progress', { class: status, max: 1, value: progress.fraction, 'aria-label': 'Progress of the batch' }),
    verbs(
      el('Verbs', { session: { ...session, input: {}, output: null }, without: ['delete'], to: 'batches' }),
      el('a', { class: 'button', href: `/v1/sessions/${id}/results.zip`, download: '' }, 'Download all'),
      may('submit') && act('Contact sheet', { path: `/sessions/${id}/sheet`, body: {}, wait: 60 }),
      button(linkTo('session', id), 'Its session'),
    ),
    el('Choices', { label: 'Items', of: choices }),
    ol('items', items.map(cell)),
    items.length === pageSize && hint(`The first ${pageSize}; all of them are in the file.`),
  )
}

function cell(item: Item): Element {
  const { index, status, session, input, output, error } = presentItem(item)
  const prompt = input['prompt']
  const words = `Item ${index}, ${status}: ${typeof prompt === 'string' ? prompt : ''}`
  const picture = el('ItemPicture', { shown: output?.images?.[0], session })
  return el(
    'li',
    { key: index, title: error?.message ?? words },
    session === null ? picture : el('a', { href: linkTo('session', session), 'aria-label': words }, picture),
    small(dot(status), ` ${index}`),
  )
}
