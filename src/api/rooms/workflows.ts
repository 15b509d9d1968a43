/** The workflows: what each does, and what its request may say. */
import type { WorkflowInfo } from '../../engine/registry.ts'
import { jsonSchema, type FormSchema } from '../json-schema.ts'
import type { At } from './at.ts'
import { drawing } from './drawing.ts'
import { div, el, field, linkTo, opening, p, room, select, small, span, ul, type Element } from './markup.ts'

export function workflows({ engine, of, may }: At): Element {
  const all = engine.workflows().toSorted((a, b) => (a.name < b.name ? -1 : 1))
  const open = all.find(({ name }) => name === of)
  return room(
    'workflows',
    'Workflows',
    null,
    div(
      'columns',
      ul(
        'rows',
        all.map(({ name, version, title }) =>
          el(
            'li',
            { key: `${name}@${version}` },
            el(
              'a',
              { href: linkTo('workflows', name), 'aria-current': name === of ? 'page' : undefined },
              span('name', title),
              small(`${name}@${version}`),
            ),
          ),
        ),
      ),
      open ? panel(open, may('submit')) : p('empty', 'Choose one to see what it takes.'),
    ),
  )
}

function panel(workflow: WorkflowInfo, maySubmit: boolean): Element {
  const { name, title, description, input } = workflow
  const schema = jsonSchema(input, 'input') as FormSchema
  const isPicture = name === 'image-generation'
  return el(
    'article',
    { key: name, class: 'panel', 'aria-labelledby': 'workflow-title' },
    el('h2', { id: 'workflow-title' }, title),
    el('p', {}, description),
    drawing(workflow),
    maySubmit && isPicture && el('a', { class: 'button main', href: linkTo('draw') }, 'Draw a picture'),
    maySubmit &&
      !isPicture &&
      el(
        'Send',
        { class: 'schema', send: { path: '/sessions', body: { workflow: name, input: {} }, to: 'session' } },
        Object.entries(schema.properties ?? {}).map(([property, each]) =>
          field(
            property,
            {},
            control(`input.${property}`, each, schema.required?.includes(property)),
            each.description && small(each.description),
          ),
        ),
        el('button', { class: 'main', type: 'submit' }, 'Run'),
      ),
    opening('Input schema', el('pre', {}, JSON.stringify(schema, null, 2))),
  )
}

/** One field for each property; JSON where that is no plain value. */
function control(name: string, schema: FormSchema, required = false): Element {
  const { type, minimum, maximum, multipleOf, maxLength } = schema
  const names = schema.enum ?? schema.anyOf?.flatMap((each) => each.enum ?? []) ?? []
  const said = { name, required }
  const placeholder = String(schema.default ?? '')
  if (names.length > 0) return select(said, names, placeholder)
  if (type === 'boolean') return el('input', { name, type: 'checkbox', defaultChecked: schema.default === true })
  const step = multipleOf ?? (type === 'integer' ? 1 : 'any')
  if (type === 'integer' || type === 'number')
    return el('input', { ...said, type: 'number', min: minimum, max: maximum, step, placeholder })
  if (type === 'string') return el('input', { ...said, maxLength, placeholder })
  return el('textarea', { ...said, rows: 2, placeholder: 'JSON', spellcheck: false, 'data-as': 'json' })
}
