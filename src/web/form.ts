/** The request that is being written: the fields of an image generation, those alone that were said. */
import { effect, signal } from './signals.ts'

export type Fields = Readonly<Record<string, unknown>>

export const groups = ['Prompt', 'Model', 'Seed', 'Size', 'Settings', 'Picture'] as const
export type Group = (typeof groups)[number]

const groupsOf: Record<string, Group> = {
  prompt: 'Prompt',
  negativePrompt: 'Prompt',
  model: 'Model',
  adapters: 'Model',
  seed: 'Seed',
  variation: 'Seed',
  width: 'Size',
  height: 'Size',
  picture: 'Picture',
  mask: 'Picture',
  strength: 'Picture',
  resize: 'Picture',
  control: 'Picture',
  references: 'Picture',
}
export const groupOf = (name: string): Group => groupsOf[name] ?? 'Settings'

const kept = 'darkroom.form'

function restored(): Fields {
  try {
    const found: unknown = JSON.parse(sessionStorage.getItem(kept) ?? '{}')
    return typeof found === 'object' && found !== null ? (found as Fields) : {}
  } catch {
    return {}
  }
}

/** A reload keeps what was written. */
export const form = signal<Fields>(restored())
effect(() => sessionStorage.setItem(kept, JSON.stringify(form.value)))

/** A mask is on its way: what is drawn now would be drawn without it. */
export const isPainting = signal(false)

/** What the API said of fields, by their names. */
export const faults = signal<Readonly<Record<string, string>>>({})

export const isEmpty = (): boolean => Object.keys(form.value).length === 0

/** `undefined` and '' are not said. */
export function set(name: string, value: unknown): void {
  const { [name]: _, ...rest } = form.value
  form.value = value === undefined || value === '' ? rest : { ...rest, [name]: value }
  const { [name]: __, ...others } = faults.value
  faults.value = others
}

/** A field that is a list: an empty one is not said. */
export const listIn = <T>(name: string): readonly T[] => (Array.isArray(form.value[name]) ? (form.value[name] as T[]) : [])
export const keep = (name: string, list: readonly unknown[]): void => set(name, list.length === 0 ? undefined : list)

/** Takes these fields in place of those of their groups. */
export function fill(fields: Fields): void {
  const replaced = new Set(Object.keys(fields).map(groupOf))
  const rest = Object.fromEntries(Object.entries(form.value).filter(([name]) => !replaced.has(groupOf(name))))
  form.value = { ...rest, ...Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== '' && value !== null)) }
  faults.value = {}
}

export function clear(): void {
  form.value = {}
  faults.value = {}
}
