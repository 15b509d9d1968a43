/** What the chosen model recommends, and what the picture as it stands would take. */
import { signal } from './signals.ts'
import { useEffect, useSignal } from './view.ts'
import type { Compatible, Queue } from '../client/types.ts'
import { get, quietly } from './api.ts'
import { form } from './form.ts'
import { inTime } from './words.ts'

interface CompatibleAnswer {
  picture: Own
  devices: readonly Compatible[]
}

/** The queue moves while one writes, ms. */
const lookMs = 5000

/** Sessions in line, of all API keys. */
const inLine = signal(0)
const estimate = signal<{ model: string; devices: readonly Compatible[] } | null>(null)

export interface Own {
  width: number
  height: number
  steps: number
  guidance: number
}

export function useOwn(model: string): Own | undefined {
  const own = useSignal<(Own & { model: string }) | undefined>(undefined)
  const { width, height, steps, guidance } = form.value
  useEffect(() => {
    if (model === '') return undefined
    const look = async (): Promise<void> => {
      const path = `/models/${encodeURIComponent(model)}/compatible`
      const query = new URLSearchParams(
        Object.entries({ width, height, steps, guidance }).flatMap(([name, value]) =>
          typeof value === 'number' ? [[name, String(value)]] : [],
        ),
      )
      const [recommended, asked, queue] = await Promise.all([
        get<CompatibleAnswer>(path),
        get<CompatibleAnswer>(`${path}?${query}`),
        get<Queue>('/queue?limit=1'),
      ])
      inLine.value = queue.waiting
      own.value = { ...recommended.picture, model }
      estimate.value = { model, devices: asked.devices }
    }
    const again = (): void => quietly(look())
    const soon = setTimeout(again, 250)
    const timer = setInterval(again, lookMs)
    return () => {
      clearTimeout(soon)
      clearInterval(timer)
    }
  }, [model, width, height, steps, guidance])
  return own.value?.model === model ? own.value : undefined
}

export function Estimate({ model }: { model: string }) {
  if (estimate.value?.model !== model) return null
  const fitting = estimate.value.devices.filter(({ fits }) => fits)
  if (fitting.length === 0) {
    const [first] = estimate.value.devices
    return <p class="hint">{first ? (first.why ?? 'It fits on no device.') : 'No worker is here: the picture waits for one.'}</p>
  }
  const seconds = fitting.flatMap((device) => device.seconds?.value ?? [])
  const count = typeof form.value['count'] === 'number' ? form.value['count'] : 1
  const time =
    seconds.length === 0 ? 'How long it takes is known after the first one' : `About ${inTime(Math.min(...seconds) * count)} once it begins`
  return (
    <p class="hint">
      {time}; {inLine.value === 0 ? 'nobody waits before it' : `place ${inLine.value + 1} in the queue`}.
    </p>
  )
}

/** Parts of a chunk that a text encoder reads at once. */
const chunk = 75

/**
 * About how many tokens a text has: a word is one, a long one several, a mark one. Which it really was the receipt
 * tells: only the model's own tokenizer knows.
 */
export function tokensIn(text: string): number {
  const parts = text.match(/[\p{L}\p{M}]+|\p{N}|[^\s\p{L}\p{M}\p{N}]+/gu) ?? []
  return parts.reduce((sum, part) => sum + (/^\p{Script=Latin}/u.test(part) ? Math.ceil(part.length / 10) : part.length), 0)
}

export function Tokens({ name }: { name: string }) {
  const text = form.value[name]
  const count = typeof text === 'string' ? tokensIn(text) : 0
  if (count === 0) return null
  const chunks = Math.ceil(count / chunk)
  return (
    <small class="tokens">
      about {count} tokens{chunks > 1 && `, ${chunks} chunks of ${chunk}`}
    </small>
  )
}
