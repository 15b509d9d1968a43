/** Webhooks: where the ends of sessions are told, what became of that, and once more. */
import { endings } from '../../webhooks/states.ts'
import type { Webhook } from '../../webhooks/webhooks.ts'
import { sightOf } from '../policy.ts'
import { presentDelivery } from '../webhooks/views.ts'
import type { At } from './at.ts'
import { act, div, el, field, form, hint, link, linkTo, listed, plural, room, small, span, time, ul, type Element } from './markup.ts'

const states = ['pending', 'dead', 'delivered'] as const
const shown = 100

export async function webhooks(at: At): Promise<Element> {
  const all = await at.engine.webhooks.list(sightOf(at.caller))
  return room(
    'webhooks',
    'Webhooks',
    null,
    ul(
      'rows',
      await Promise.all(
        all.map(async (webhook) => {
          const { id, url, events } = webhook
          const isOpen = id === at.of
          return el(
            'li',
            { key: id },
            el(
              'a',
              { href: linkTo('webhooks', isOpen ? '' : id), 'aria-expanded': isOpen },
              span('name', url),
              small(listed(id, events.join(', '))),
            ),
            isOpen && (await open(at, webhook)),
          )
        }),
      ),
    ),
    all.length === 0 && hint('There is none. A submission names one, and its end is told there.'),
    at.may('control') &&
      form(
        'Make it',
        'A new webhook',
        { path: '/webhooks' },
        field('URL', { name: 'url', type: 'url', required: true, maxLength: 2000, placeholder: 'https://studio.example.org/darkroom' }),
        el(
          'fieldset',
          { class: 'chips' },
          el('legend', {}, 'Of sessions that have'),
          endings.map((ending) =>
            el('label', {}, el('input', { type: 'checkbox', name: 'events', value: ending, defaultChecked: true }), ` ${ending}`),
          ),
        ),
      ),
  )
}

async function open({ engine, show, may }: At, { id, url }: Webhook): Promise<Element> {
  const state = states.find((each) => each === show) ?? 'pending'
  const deliveries = (await engine.deliveries.list(id, state, shown)).map(presentDelivery)
  const send = { path: `/webhooks/${id}/send` }
  return div(
    'panel',
    div(
      'bar',
      el('Choices', { label: 'Deliveries', of: states }),
      may('control') && [
        state === 'dead' && deliveries.length > 0 && act(`Send ${plural(deliveries.length, 'dead one')} again`, { ...send, body: {} }),
        act('New secret', { path: `/webhooks/${id}/rotate` }),
        act('Remove', { method: 'DELETE', path: `/webhooks/${id}` }, { sure: url }),
      ],
    ),
    deliveries.length === 0 && hint(`None is ${state}.`),
    ul(
      'deliveries',
      deliveries.map(({ session, event, tries, said, triedAt, endedAt }) =>
        el(
          'li',
          { key: session },
          link(linkTo('session', session), event),
          ' ',
          small(time(triedAt ?? endedAt), ` · ${plural(tries, 'try', 'tries')}`, said !== null && ` · ${said}`),
          may('control') &&
            state !== 'pending' &&
            act('Send again', { ...send, body: { sessions: [session] } }, { 'aria-label': `Send ${event} of ${session} again` }),
        ),
      ),
    ),
  )
}
