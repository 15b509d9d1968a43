/** The models of all hosts: what each is, where it lies, and what keeps it from being used. */
import { computed, signal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { Model } from '../client/types.ts'
import { attempt, may, quietly, request, submit } from './api.ts'
import { allModels, lookForModels } from './catalogue.ts'
import { set } from './form.ts'
import { devices } from './live.ts'
import { go } from './route.ts'
import { inBytes, plural } from './words.ts'

const words = signal('')
const found = computed(() => {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean)
  return allModels().filter(({ id, kind, family, status, annotation }) => {
    const text = `${id} ${kind} ${family ?? ''} ${status} ${annotation?.title ?? ''} ${annotation?.tags.join(' ') ?? ''}`.toLowerCase()
    return wanted.every((word) => text.includes(word))
  })
})
/** What is under way, by model. */
const doing = signal<Readonly<Record<string, string>>>({})

export function Models() {
  useEffect(() => quietly(lookForModels()), [])
  return (
    <section class="models room" aria-labelledby="models-name">
      <h1 id="models-name">Models</h1>
      <header class="bar">
        <label class="search">
          <span class="sr">Search models</span>
          <input
            type="search"
            placeholder="Search: name, kind, family, tag"
            value={words.value}
            onInput={(event) => (words.value = event.currentTarget.value)}
          />
        </label>
        <span class="count" role="status">
          {plural(found.value.length, 'model')}
        </span>
        {may('submit') && (
          <button type="button" onClick={() => void attempt(() => request('POST', '/models/rescan').then(lookForModels))}>
            Look again
          </button>
        )}
      </header>
      <ul class="rows">
        {found.value.map((model) => (
          <Row key={`${model.kind} ${model.id}`} model={model} />
        ))}
      </ul>
    </section>
  )
}

async function load(model: string): Promise<void> {
  doing.value = { ...doing.value, [model]: 'loads…' }
  const done = await attempt(() => submit('model-loading', { model }, 60))
  doing.value = {
    ...doing.value,
    [model]: done ? (done.error?.message ?? (done.status === 'succeeded' ? 'resident' : done.status)) : '',
  }
}

function Row({ model }: { model: Model }) {
  const { id, kind, family, status, why, precision, parameters, bytes, format, where, annotation, reason, notes } = model
  const facts = [
    family,
    precision,
    parameters > 0 && `${(parameters / 1e6).toFixed(parameters < 1e7 ? 1 : 0)} M parameters`,
    inBytes(bytes),
    format,
  ]
  return (
    <li>
      <details>
        <summary>
          <span class="name">{annotation?.title || id}</span>
          <span class="tag">{kind}</span>
          {status !== 'unsupported' && <span class={`tag ${status}`}>{status}</span>}
          <span class="hint">{facts.filter(Boolean).join(' · ')}</span>
        </summary>
        {(why ?? reason?.message) && <p class="hint">{why ?? reason?.message}</p>}
        {annotation?.notes && <p>{annotation.notes}</p>}
        {notes.map((note) => (
          <p key={note} class="hint">
            {note}
          </p>
        ))}
        <ul class="paths">
          {where.map(({ shelf, path, root, workers }) => (
            <li key={shelf + path}>
              <code>
                {root}/{path}
              </code>{' '}
              <small>{plural(workers.length, 'worker')}</small>
            </li>
          ))}
        </ul>
        {status === 'usable' && may('submit') && (
          <div class="verbs">
            <button
              type="button"
              onClick={() => {
                set('model', id)
                go('draw')
              }}
            >
              Draw with it
            </button>
            {devices.value.length > 0 && (
              <button type="button" onClick={() => void load(id)}>
                Load
              </button>
            )}
            <span role="status">{doing.value[id]}</span>
          </div>
        )}
      </details>
    </li>
  )
}
