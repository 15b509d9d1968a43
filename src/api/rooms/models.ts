/** The models of all hosts: what each is, where it lies, and what keeps it from being used. */
import type { WorkerRecord } from '../../farm/record.ts'
import { sizeText } from '../../models/header.ts'
import type { Listed } from '../../models/listing.ts'
import { shortName } from '../devices/views.ts'
import { presentModel } from '../models/views.ts'
import type { At } from './at.ts'
import { act, button, div, el, field, hint, linkTo, listed, opening, plural, room, small, span, ul, verbs, type Element } from './markup.ts'

const most = 1000
/** What is loaded or let go of is waited for, s. */
const waitS = 60

export async function models({ engine, line, may }: At): Promise<Element> {
  const [workers] = await Promise.all([engine.workers(), engine.models.read()])
  const words = line.toLowerCase().split(/\s+/).filter(Boolean)
  const found = engine.models.list().filter(({ text }) => words.every((word) => text.includes(word)))
  return room(
    'models',
    'Models',
    [
      el('Line', { label: 'Search models', placeholder: 'Search: name, kind, family, tag' }),
      el('span', { class: 'count', role: 'status' }, plural(found.length, 'model')),
      may('submit') && act('Look again', { path: '/models/rescan' }),
    ],
    ul(
      'rows',
      found.slice(0, most).map((each) => row(each, workers, may)),
    ),
    found.length > most && hint(`The first ${most}; a search finds the others.`),
  )
}

function row(each: Listed, workers: readonly WorkerRecord[], may: At['may']): Element {
  const model = presentModel(each, workers)
  const { id, kind, family, status, why, precision, parameters, bytes, format, where, annotation, reason, notes } = model
  const size = parameters >= 5e4 && `${(parameters / 1e6).toFixed(parameters < 1e7 ? 1 : 0)} M parameters`
  const url = `/v1/models/${encodeURIComponent(id)}/picture?kind=${kind}`
  return el(
    'li',
    // Several kinds may have one name.
    { key: `${kind} ${id}` },
    opening(
      [
        el('Picture', { shown: { url, width: 256, height: 256 }, isSmall: true }),
        span('name', annotation?.title || id),
        span('tag', kind),
        status !== 'unsupported' && span(`tag ${status}`, status),
        span('hint', listed(family, precision, size, sizeText(bytes), format)),
      ],
      (why ?? reason?.message) && hint(why ?? reason?.message),
      annotation?.notes && el('p', {}, annotation.notes),
      notes.map((note) => hint(note)),
      ul(
        'paths',
        where.map(({ shelf, path, workers: holding }) =>
          el('li', { key: shelf + path }, el('code', {}, path), ' ', small(plural(holding.length, 'worker'))),
        ),
      ),
      status === 'usable' &&
        may('submit') &&
        verbs(
          button(linkTo('draw', `model=${encodeURIComponent(id)}`), 'Draw with it'),
          workers.length > 0 && turn('Load', 'model-loading', { model: id, kind }),
          workers
            .filter(({ report }) => report.python?.models.some((resident) => resident.id === id))
            .map((worker) => turn(`Unload from ${shortName(worker)}`, 'model-unload', { model: id, kind, device: worker.device.id })),
        ),
      may('operate') && model.bodyHash !== null && annotate(model),
    ),
  )
}

const turn = (name: string, workflow: string, input: object): Element =>
  act(name, { path: '/sessions', body: { workflow, input }, wait: waitS })

function annotate({ id, kind, annotation }: ReturnType<typeof presentModel>): Element {
  const { title = '', tags = [], notes = '', settings = {}, vae = null } = annotation ?? {}
  const path = `/models/${encodeURIComponent(id)}/annotation?kind=${kind}`
  return opening(
    'What is said of it',
    el(
      'Send',
      { class: 'schema', send: { method: 'PUT', path, body: { settings, vae: vae?.id ?? null } } },
      div(
        'row',
        field('Title', { name: 'title', maxLength: 200, defaultValue: title }),
        field('Tags, between commas', { name: 'tags', defaultValue: tags.join(', '), 'data-as': 'list' }),
      ),
      field('Notes', {}, el('textarea', { name: 'notes', rows: 3, maxLength: 8000, defaultValue: notes })),
      el('button', { class: 'main', type: 'submit' }, 'Keep it'),
    ),
  )
}
