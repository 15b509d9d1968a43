/** The API keys: made, seen, revoked by operators. */
import { usualScopes, type Scope } from '../../api-keys.ts'
import { presentKey } from '../keys/views.ts'
import type { At } from './at.ts'
import { act, div, el, field, form, hint, p, room, small, span, table, time, type Element } from './markup.ts'

const meanings: Record<Scope, string> = {
  submit: 'submit sessions',
  read: 'see its own',
  control: 'pause, cancel, delete its own',
  operate: 'see and do everything',
  metrics: 'read the metrics',
}

export async function keys({ keys: store, caller: { keyId }, may }: At): Promise<Element> {
  if (!may('operate')) return room('keys', 'Keys', null, p('empty', 'Keys are shown to whoever may operate the farm.'))
  const all = (await store.list()).map((key) => presentKey(key, keyId))
  return room(
    'keys',
    'Keys',
    null,
    all.length === 0 &&
      hint(
        'There is no key: every user of this machine may do everything. With the first one, everybody needs one; this page then goes on with it.',
      ),
    all.length > 0 &&
      table(
        '',
        ['Key', 'May', 'Weight', 'Made', span('sr', 'Revoke')],
        all.map(({ id, name, scopes, weight, createdAt, isOwn }) => [
          id,
          [`${name} `, small(id, isOwn && ', yours')],
          scopes.join(', '),
          weight,
          time(createdAt),
          act('Revoke', { method: 'DELETE', path: `/keys/${id}` }, { sure: name }),
        ]),
      ),
    form(
      'Make it',
      'A new key',
      { path: '/keys' },
      div(
        'row',
        field('Name', { name: 'name', required: true, maxLength: 64, placeholder: 'studio' }),
        field('Weight', { name: 'weight', type: 'number', min: 0.01, max: 100, step: 'any', defaultValue: 1, required: true }),
      ),
      el(
        'fieldset',
        {},
        el('legend', {}, 'It may'),
        Object.entries(meanings).map(([scope, words]) =>
          el(
            'label',
            { class: 'tick' },
            // The first key is that of whoever makes it.
            el('input', { type: 'checkbox', name: 'scopes', value: scope, defaultChecked: keyId === null || isUsual(scope) }),
            el('span', {}, scope),
            ' ',
            small(words),
          ),
        ),
      ),
    ),
  )
}

const isUsual = (scope: string): boolean => (usualScopes as readonly string[]).includes(scope)
