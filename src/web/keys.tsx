/** The API keys: made, seen, revoked by operators. */
import { signal } from './signals.ts'
import type { ApiKey, ApiKeyWithSecret } from '../client/types.ts'
import { attempt, enter, get, may, request, viewer } from './api.ts'
import { Labelled, Panel, Table } from './parts.tsx'
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

async function add(said: FormData): Promise<boolean> {
  const isFirst = viewer.value?.keyId === null
  const body = { name: said.get('name'), scopes: said.getAll('scope'), weight: Number(said.get('weight')) }
  const key = await attempt(() => request<ApiKeyWithSecret>('POST', '/keys', body))
  if (!key) return false
  made.value = key
  // The farm is closed from now on: whoever has made its first key comes in with it.
  if (isFirst) await attempt(() => enter(key.key))
  await attempt(look)
  return true
}

const rowOf = ({ id, name, scopes: granted, weight, createdAt, isOwn }: ApiKey) => [
  <>
    {name}{' '}
    <small>
      {id}
      {isOwn && ', yours'}
    </small>
  </>,
  granted.join(', '),
  weight,
  atTime(createdAt),
  <Sure key={id} verb="Revoke" of={name} act={() => void attempt(() => request('DELETE', `/keys/${id}`).then(look))} />,
]

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
        <Table
          heads={['Key', 'May', 'Weight', 'Made', <span class="sr">Revoke</span>]}
          rows={Object.fromEntries(keys.value.map((key) => [key.id, rowOf(key)]))}
        />
      )}
      {isOperator && (
        <Panel title="A new key" act={add}>
          <div class="row">
            <Labelled label="Name" name="name" required maxLength={64} placeholder="studio" />
            <Labelled label="Weight" name="weight" type="number" min="0.01" max="100" step="any" defaultValue="1" required />
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
        </Panel>
      )}
    </Room>
  )
}
