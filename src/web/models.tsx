/** The models of all hosts: what each is, where it lies, and what keeps it from being used. */
import { computed, signal } from './signals.ts'
import type { Model } from '../client/types.ts'
import { attempt, may, request, submit } from './api.ts'
import { allModels, lookForModels, lookOf } from './catalogue.ts'
import { set } from './form.ts'
import { devices } from './live.ts'
import { Form, Labelled, Main, Search, textOf } from './parts.tsx'
import { Picture } from './picture.tsx'
import { Room, useLook } from './room.tsx'
import { go } from './route.ts'
import { inBytes, listed, plural } from './words.ts'

const words = signal('')
const found = computed(() => {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean)
  return allModels().filter(({ id, kind, family, status, annotation }) => {
    const text = `${id} ${kind} ${family ?? ''} ${status} ${annotation?.title ?? ''} ${annotation?.tags.join(' ') ?? ''}`.toLowerCase()
    return wanted.every((word) => text.includes(word))
  })
})
/** Several kinds may have one name. */
const keyOf = ({ kind, id }: Model): string => `${kind} ${id}`
/** What is under way, by model. */
const doing = signal<Readonly<Record<string, string>>>({})

export function Models() {
  useLook(lookForModels, 10_000)
  return (
    <Room
      name="models"
      title="Models"
      bar={
        <>
          <Search label="Search models" placeholder="Search: name, kind, family, tag" line={words} />
          <span class="count" role="status">
            {plural(found.value.length, 'model')}
          </span>
          {may('submit') && (
            <button onClick={() => void attempt(() => request('POST', '/models/rescan').then(lookForModels))}>Look again</button>
          )}
        </>
      }
    >
      <ul class="rows">
        {found.value.map((model) => (
          <Row key={keyOf(model)} model={model} />
        ))}
      </ul>
    </Room>
  )
}

async function load(one: Model): Promise<void> {
  const { id: model, kind } = one
  doing.value = { ...doing.value, [keyOf(one)]: 'loads…' }
  const done = await attempt(() => submit('model-loading', { model, kind }, 60))
  doing.value = {
    ...doing.value,
    [keyOf(one)]: done ? (done.error?.message ?? (done.status === 'succeeded' ? 'resident' : done.status)) : '',
  }
}

/** From every device. */
async function unload(one: Model): Promise<void> {
  const { id: model, kind } = one
  const ends = await Promise.all(devices.value.map(({ id }) => attempt(() => submit('model-unload', { model, kind, device: id }, 60))))
  const isGone = ends.every((end) => end?.status === 'succeeded')
  doing.value = { ...doing.value, [keyOf(one)]: isGone ? 'not resident' : (ends.find((end) => end?.error)?.error?.message ?? '') }
}

async function annotate({ id, kind, annotation }: Model, said: FormData): Promise<void> {
  const { settings = {}, vae = null } = annotation ?? {}
  await attempt(async () => {
    const tags = textOf(said, 'tags').split(/\s*,\s*/)
    const body = { title: said.get('title'), tags: tags.filter(Boolean), notes: said.get('notes'), settings, vae: vae?.id ?? null }
    await request('PUT', `/models/${encodeURIComponent(id)}/annotation?kind=${kind}`, body)
    await lookForModels()
  })
}

function Annotate({ model }: { model: Model }) {
  const { annotation } = model
  return (
    <details>
      <summary>What is said of it</summary>
      <Form class="schema" act={(said) => annotate(model, said)}>
        <div class="row">
          <Labelled label="Title" name="title" maxLength={200} defaultValue={annotation?.title ?? ''} />
          <Labelled label="Tags, between commas" name="tags" defaultValue={annotation?.tags.join(', ') ?? ''} />
        </div>
        <Labelled label="Notes">
          <textarea name="notes" rows={3} maxLength={8000} defaultValue={annotation?.notes ?? ''} />
        </Labelled>
        <Main>Keep it</Main>
      </Form>
    </details>
  )
}

function Row({ model }: { model: Model }) {
  const { id, kind, family, status, why, precision, parameters, bytes, format, where, annotation, reason, notes } = model
  const facts = listed(
    family,
    precision,
    parameters >= 5e4 && `${(parameters / 1e6).toFixed(parameters < 1e7 ? 1 : 0)} M parameters`,
    inBytes(bytes),
    format,
  )
  return (
    <li>
      <details>
        <summary>
          <Picture shown={lookOf(model)} isSmall />
          <span class="name">{annotation?.title || id}</span>
          <span class="tag">{kind}</span>
          {status !== 'unsupported' && <span class={`tag ${status}`}>{status}</span>}
          <span class="hint">{facts}</span>
        </summary>
        {(why ?? reason?.message) && <p class="hint">{why ?? reason?.message}</p>}
        {annotation?.notes && <p>{annotation.notes}</p>}
        {notes.map((note) => (
          <p key={note} class="hint">
            {note}
          </p>
        ))}
        <ul class="paths">
          {where.map(({ shelf, path, workers }) => (
            <li key={shelf + path}>
              <code>{path}</code> <small>{plural(workers.length, 'worker')}</small>
            </li>
          ))}
        </ul>
        {status === 'usable' && may('submit') && (
          <div class="verbs">
            <button
              onClick={() => {
                set('model', id)
                go('draw')
              }}
            >
              Draw with it
            </button>
            {devices.value.length > 0 && (
              <>
                <button onClick={() => void load(model)}>Load</button>
                <button onClick={() => void unload(model)}>Unload</button>
              </>
            )}
            <span role="status">{doing.value[keyOf(model)]}</span>
          </div>
        )}
        {may('operate') && model.bodyHash !== null && <Annotate model={model} />}
      </details>
    </li>
  )
}
