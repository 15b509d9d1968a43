/** Webhooks: where the ends of sessions are told, what became of that, and once more. */
import { signal } from './signals.ts'
import type { Delivery, Webhook, WebhookWithSecret } from '../client/types.ts'
import { attempt, get, may, request } from './api.ts'
import { Choices, Labelled, Panel } from './parts.tsx'
import { Room, Secret, Sure, useLook } from './room.tsx'
import { linkTo } from './route.ts'
import { atTime, plural } from './words.ts'

const all = signal<readonly Webhook[]>([])
const made = signal<WebhookWithSecret | null>(null)
const deliveries = signal<readonly Delivery[]>([])
const states = ['pending', 'dead', 'delivered'] as const
const state = signal<(typeof states)[number]>('pending')
const endings = ['succeeded', 'failed', 'cancelled'] as const

const look = async (): Promise<void> => void (all.value = (await get<{ webhooks: Webhook[] }>('/webhooks')).webhooks)

async function add(said: FormData): Promise<boolean> {
  const body = { url: said.get('url'), events: said.getAll('event') }
  const webhook = await attempt(() => request<WebhookWithSecret>('POST', '/webhooks', body))
  if (!webhook) return false
  made.value = webhook
  await attempt(look)
  return true
}

export function Webhooks({ id }: { id: string }) {
  useLook(look, 10_000)
  return (
    <Room name="webhooks" title="Webhooks">
      {made.value && <Secret what={`The secret of ${made.value.url}.`} text={made.value.secret} close={() => (made.value = null)} />}
      <ul class="rows">
        {all.value.map((webhook) => (
          <li key={webhook.id}>
            <a href={linkTo('webhooks', webhook.id === id ? '' : webhook.id)} aria-expanded={webhook.id === id}>
              <span class="name">{webhook.url}</span>
              <small>
                {webhook.id} · {webhook.events.join(', ')}
              </small>
            </a>
            {webhook.id === id && <Open webhook={webhook} />}
          </li>
        ))}
      </ul>
      {all.value.length === 0 && <p class="hint">There is none. A submission names one, and its end is told there.</p>}
      {may('control') && (
        <Panel title="A new webhook" act={add}>
          <Labelled label="URL" name="url" type="url" required maxLength={2000} placeholder="https://studio.example.org/darkroom" />
          <fieldset class="chips">
            <legend>Of sessions that have</legend>
            {endings.map((ending) => (
              <label key={ending}>
                <input type="checkbox" name="event" value={ending} defaultChecked /> {ending}
              </label>
            ))}
          </fieldset>
        </Panel>
      )}
    </Room>
  )
}

function Open({ webhook: { id, url } }: { webhook: Webhook }) {
  const path = `/webhooks/${id}`
  const lookInto = async (): Promise<void> =>
    void (deliveries.value = (await get<{ deliveries: Delivery[] }>(`${path}/deliveries?state=${state.value}&limit=100`)).deliveries)
  useLook(lookInto, 2000, id, state.value)
  const send = (sessions?: string[]): void => void attempt(() => request('POST', `${path}/send`, { sessions }).then(lookInto))
  const rotate = async (): Promise<void> => void (made.value = await request<WebhookWithSecret>('POST', `${path}/rotate`))
  return (
    <div class="panel">
      <div class="bar">
        <Choices label="Deliveries" of={states} chosen={state} />
        {may('control') && (
          <>
            {state.value === 'dead' && deliveries.value.length > 0 && (
              <button onClick={() => send()}>Send {plural(deliveries.value.length, 'dead one')} again</button>
            )}
            <button onClick={() => void attempt(rotate)}>New secret</button>
            <Sure verb="Remove" of={url} act={() => void attempt(() => request('DELETE', path).then(look))} />
          </>
        )}
      </div>
      {deliveries.value.length === 0 && <p class="hint">None is {state.value}.</p>}
      <ul class="deliveries">
        {deliveries.value.map(({ session, event, tries, said, triedAt, endedAt }) => (
          <li key={session}>
            <a href={linkTo('session', session)}>{event}</a>{' '}
            <small>
              {atTime(triedAt ?? endedAt)} · {plural(tries, 'try').replace(/ys$/, 'ies')}
              {said !== null && ` · ${said}`}
            </small>
            {may('control') && state.value !== 'pending' && (
              <button aria-label={`Send ${event} of ${session} again`} onClick={() => send([session])}>
                Send again
              </button>
            )}
          </li>
        ))}
      </ul>
    </div>
  )
}
