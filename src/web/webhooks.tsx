/** Webhooks: where the ends of sessions are told, what became of that, and once more. */
import { signal } from '@preact/signals'
import type { Delivery, Webhook, WebhookWithSecret } from '../client/types.ts'
import { attempt, get, may, request } from './api.ts'
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

async function add(form: HTMLFormElement): Promise<void> {
  const data = new FormData(form)
  const webhook = await attempt(() =>
    request<WebhookWithSecret>('POST', '/webhooks', { url: data.get('url'), events: data.getAll('event') }),
  )
  if (!webhook) return
  made.value = webhook
  form.reset()
  await attempt(look)
}

export function Webhooks({ id }: { id: string }) {
  useLook(look, 10_000)
  const open = all.value.find((webhook) => webhook.id === id)
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
            {webhook === open && <Open webhook={open} />}
          </li>
        ))}
      </ul>
      {all.value.length === 0 && <p class="hint">There is none. A submission names one, and its end is told there.</p>}
      {may('control') && (
        <form
          class="panel"
          aria-labelledby="webhook-form"
          onSubmit={(event) => {
            event.preventDefault()
            void add(event.currentTarget)
          }}
        >
          <h2 id="webhook-form">A new webhook</h2>
          <label class="field">
            <span>URL</span>
            <input name="url" type="url" required maxLength={2000} placeholder="https://studio.example.org/darkroom" />
          </label>
          <fieldset class="chips">
            <legend>Of sessions that have</legend>
            {endings.map((ending) => (
              <label key={ending}>
                <input type="checkbox" name="event" value={ending} defaultChecked /> {ending}
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

function Open({ webhook: { id, url } }: { webhook: Webhook }) {
  const lookInto = async (): Promise<void> =>
    void (deliveries.value = (
      await get<{ deliveries: Delivery[] }>(`/webhooks/${id}/deliveries?state=${state.value}&limit=100`)
    ).deliveries)
  useLook(lookInto, 2000, id, state.value)
  const send = (sessions?: string[]): void =>
    void attempt(() => request('POST', `/webhooks/${id}/send`, sessions ? { sessions } : {}).then(lookInto))
  return (
    <div class="panel">
      <div class="bar">
        <div class="chips" role="group" aria-label="Deliveries">
          {states.map((each) => (
            <button key={each} type="button" aria-pressed={state.value === each} onClick={() => (state.value = each)}>
              {each}
            </button>
          ))}
        </div>
        {may('control') && (
          <>
            {state.value === 'dead' && deliveries.value.length > 0 && (
              <button type="button" onClick={() => send()}>
                Send {plural(deliveries.value.length, 'dead one')} again
              </button>
            )}
            <button
              type="button"
              onClick={() => void attempt(async () => (made.value = await request<WebhookWithSecret>('POST', `/webhooks/${id}/rotate`)))}
            >
              New secret
            </button>
            <Sure verb="Remove" of={url} act={() => void attempt(() => request('DELETE', `/webhooks/${id}`).then(look))} />
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
              <button type="button" aria-label={`Send ${event} of ${session} again`} onClick={() => send([session])}>
                Send again
              </button>
            )}
          </li>
        ))}
      </ul>
    </div>
  )
}
