/** Schedules: what is submitted again and again. */
import { overlaps } from '../../engine/overlap.ts'
import { sightOf } from '../policy.ts'
import { presentSchedule, type ScheduleView } from '../schedules/views.ts'
import type { z } from 'zod'
import type { At } from './at.ts'
import {
  act,
  div,
  el,
  field,
  form,
  hint,
  link,
  linkTo,
  opening,
  ol,
  room,
  select,
  small,
  span,
  time,
  ul,
  verbs,
  type Element,
} from './markup.ts'

const rules = ['by a cron pattern', 'every so many seconds'] as const

export async function schedules({ engine, caller, may, show }: At): Promise<Element> {
  const all = (await engine.schedules.list(sightOf(caller))).map(presentSchedule)
  const names = [...new Set(engine.workflows().map(({ name }) => name))].toSorted()
  const isCron = show !== rules[1]
  return room(
    'schedules',
    'Schedules',
    null,
    ul(
      'rows',
      all.map((schedule) => row(schedule, may('control'))),
    ),
    all.length === 0 && hint('There is none.'),
    may('submit') &&
      form(
        'Make it',
        'A new schedule',
        { path: '/schedules' },
        el('Choices', { label: 'Rule', of: rules }),
        div(
          'row',
          field('Name', { name: 'name', required: true, maxLength: 64, placeholder: 'nightly' }),
          isCron
            ? field('Minute hour day month weekday', { key: 'cron', name: 'cron', required: true, placeholder: '30 2 * * 1-5' })
            : field('Seconds', { key: 'everyS', name: 'everyS', type: 'number', min: 1, required: true, placeholder: '3600' }),
        ),
        div(
          'row',
          isCron && field('Time zone', {}, el('Zone', { name: 'timezone', required: true })),
          field('While the last one goes on', {}, select({ name: 'overlap' }, overlaps)),
          field('Workflow', {}, select({ name: 'session.workflow', defaultValue: 'image-generation' }, names)),
        ),
        field(
          'Input, as JSON; to begin with it is what stands in the form of Draw',
          {},
          el('Written', { name: 'session.input', rows: 5, required: true, spellcheck: false, 'data-as': 'json' }),
        ),
      ),
  )
}

function row({ id, name, session, isPaused, next, occurrences, ...rule }: z.infer<typeof ScheduleView>, mayControl: boolean): Element {
  const [latest] = occurrences
  const path = `/schedules/${id}`
  const turn = isPaused ? 'Resume' : 'Pause'
  return el(
    'li',
    { key: id },
    opening(
      [
        span('name', name),
        span('tag', isPaused ? 'paused' : rule.cron === null ? `every ${rule.everyS} s` : `${rule.cron} ${rule.timezone}`),
        span('hint', session.workflow, next[0] !== undefined && [' · next ', time(next[0], true)], latest && ` · last ${latest.is}`),
      ],
      ol(
        'deliveries',
        occurrences.map(({ instant, is, session: made, said }) =>
          el('li', { key: instant }, time(instant, true), ' ', made === null ? is : link(linkTo('session', made), is), ' ', small(said)),
        ),
      ),
      el('pre', {}, JSON.stringify(session.input, null, 2)),
      mayControl && verbs(act(turn, { path: `${path}/${turn.toLowerCase()}` }), act('Remove', { method: 'DELETE', path }, { sure: name })),
    ),
  )
}
