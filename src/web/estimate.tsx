/** What the chosen model recommends, and what the picture as it stands would take. */
import { signal, useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { Compatible } from '../client/types.ts'
import { get, quietly } from './api.ts'
import { form } from './form.ts'
import { inTime } from './words.ts'

interface CompatibleAnswer {
  picture: Own
  devices: readonly Compatible[]
}

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
      const [recommended, asked] = await Promise.all([get<CompatibleAnswer>(path), get<CompatibleAnswer>(`${path}?${query}`)])
      own.value = { ...recommended.picture, model }
      estimate.value = { model, devices: asked.devices }
    }
    const timer = setTimeout(() => quietly(look()), 250)
    return () => clearTimeout(timer)
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
  if (seconds.length === 0) return <p class="hint">How long it takes is known after the first one.</p>
  return <p class="hint">About {inTime(Math.min(...seconds) * count)} once it begins.</p>
}
