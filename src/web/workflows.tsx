/** The workflows: what each does, and what its request may say. */
import { signal } from './signals.ts'
import { useEffect } from './view.ts'
import type { Workflow } from '../client/types.ts'
import { attempt, get, may, quietly, submit } from './api.ts'
import { Diagram } from './diagram.tsx'
import type { Schema } from './fields.tsx'
import { Json } from './parts.tsx'
import { Room } from './room.tsx'
import { linkTo, go } from './route.ts'
import { readInput, SchemaForm } from './schema-form.tsx'

const all = signal<readonly Workflow[]>([])

export function Workflows({ id }: { id: string }) {
  useEffect(() => {
    const take = ({ workflows }: { workflows: Workflow[] }): void =>
      void (all.value = workflows.toSorted((a, b) => (a.name < b.name ? -1 : 1)))
    quietly(get<{ workflows: Workflow[] }>('/workflows').then(take))
  }, [])
  const open = all.value.find(({ name }) => name === id)
  return (
    <Room name="workflows" title="Workflows">
      <div class="columns">
        <ul class="rows">
          {all.value.map(({ name, version, title }) => (
            <li key={`${name}@${version}`}>
              <a href={linkTo('workflows', name)} aria-current={name === id ? 'page' : undefined}>
                <span class="name">{title}</span>
                <small>
                  {name}@{version}
                </small>
              </a>
            </li>
          ))}
        </ul>
        {open ? <Open key={open.name} workflow={open} /> : <p class="empty">Choose one to see what it takes.</p>}
      </div>
    </Room>
  )
}

function Open({ workflow: { name, title, description, inputSchema } }: { workflow: Workflow }) {
  const schema = inputSchema as Schema
  const run = async (said: FormData): Promise<void> => {
    const session = await attempt(async () => submit(name, readInput(schema, said)))
    if (session) go('session', session.id)
  }
  return (
    <article class="panel" aria-labelledby="workflow-title">
      <h2 id="workflow-title">{title}</h2>
      <p>{description}</p>
      <Diagram key={name} workflow={name} />
      {may('submit') && name === 'image-generation' && (
        <a class="button main" href={linkTo('draw')}>
          Draw a picture
        </a>
      )}
      {may('submit') && name !== 'image-generation' && <SchemaForm schema={schema} act={run} />}
      <details>
        <summary>Input schema</summary>
        <Json of={inputSchema} />
      </details>
    </article>
  )
}
