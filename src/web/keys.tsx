/** The API keys: made, seen, revoked by operators. */
import { signal } from '@preact/signals'
import type { ApiKey, ApiKeyWithSecret } from '../client/types.ts'
import { attempt, enter, get, may, request, viewer } from './api.ts'
import { Room, Secret, Sure, useLook } from './room.tsx'
import { atTime } from './words.ts'

const keys = signal<readonly ApiKey[]>([])
/** The one that was made last. */
const made = signal<ApiKeyWithSecret | null>(null)

const scopes = {
  submit: 'submit sessions',
  read: 'see its own',
  control: 'pause, cancel, delete its own',
  operate: 'see and do everything',
  metrics: 'read the metrics',
} as const
const usual: readonly string[] = ['submit', 'read', 'control']

const look = async (): Promise<void> => void (keys.value = (await get<{ keys: ApiKey[] }>('/keys')).keys)

async function add(form: HTMLFormElement): Promise<void> {
  const data = new FormData(form)
  const isFirst = viewer.value?.keyId === null
  const body = { name: data.get('name'), scopes: data.getAll('scope'), weight: Number(data.get('weight')) }
  const key = await attempt(() => request<ApiKeyWithSecret>('POST', '/keys', body))
  if (!key) return
  made.value = key
  form.reset()
  // The farm is closed from now on: whoever has made its first key comes in with it.
  if (isFirst) await attempt(() => enter(key.key))
  await attempt(look)
}

export function Keys() {
  const isOperator = may('operate')
  useLook(() => (isOperator ? look() : Promise.resolve()), 10_000, isOperator)
  return (
    <Room name="keys" title="Keys">
      {made.value && <Secret what={`Key ${made.value.id}, ${made.value.name}.`} text={made.value.key} close={() => (made.value = null)} />}
      {!isOperator && <p class="empty">Keys are shown to whoever may operate the farm.</p>}
      {isOperator && keys.value.length === 0 && (
        <p class="hint">
          There is no key: every user of this machine may do everything. With the first one, everybody needs one; this page then goes on
          with it.
        </p>
      )}
      {keys.value.length > 0 && (
        <table class="plain-table">
          <thead>
            <tr>
              <th scope="col">Key</th>
              <th scope="col">May</th>
              <th scope="col">Weight</th>
              <th scope="col">Made</th>
              <th scope="col">
                <span class="sr">Revoke</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {keys.value.map(({ id, name, scopes: granted, weight, createdAt, isOwn }) => (
              <tr key={id}>
                <th scope="row">
                  {name}{' '}
                  <small>
                    {id}
                    {isOwn && ', yours'}
                  </small>
                </th>
                <td>{granted.join(', ')}</td>
                <td>{weight}</td>
                <td>{atTime(createdAt)}</td>
                <td>
                  <Sure verb="Revoke" of={name} act={() => void attempt(() => request('DELETE', `/keys/${id}`).then(look))} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {isOperator && (
        <form
          class="panel"
          aria-labelledby="key-form"
          onSubmit={(event) => {
            event.preventDefault()
            void add(event.currentTarget)
          }}
        >
          <h2 id="key-form">A new key</h2>
          <div class="row">
            <label class="field">
              <span>Name</span>
              <input name="name" required maxLength={64} placeholder="studio" />
            </label>
            <label class="field">
              <span>Weight</span>
              <input name="weight" type="number" min="0.01" max="100" step="any" defaultValue="1" required />
            </label>
          </div>
          <fieldset>
            <legend>It may</legend>
            {Object.entries(scopes).map(([scope, words]) => (
              <label key={scope} class="tick">
                <input type="checkbox" name="scope" value={scope} defaultChecked={viewer.value?.keyId === null || usual.includes(scope)} />
                <span>{scope}</span> <small>{words}</small>
              </label>
            ))}
          </fieldset>
          <button type="submit" class="main">
            Make it
          </button>
        </form>
      )}
    </Room>
  )
}
