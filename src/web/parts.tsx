/** What several rooms are made of: dots, fields, choices, forms, tables, dialogs. */
import type { Signal } from './signals.ts'
import type { ButtonHTMLAttributes, ComponentChildren, FormHTMLAttributes, InputHTMLAttributes, SelectHTMLAttributes } from 'preact'
import { useEffect, useRef } from './view.ts'

type Text = readonly string[]

/** The state of something as a colour; it stands beside its name. */
export const Dot = ({ of }: { of: string }) => <i class={`dot ${of}`} aria-hidden="true" />

/** What went wrong, where anything did. */
export const Fault = ({ children, id }: { children: ComponentChildren; id?: string }) =>
  children ? (
    <p class="fault" id={id} role="alert">
      {children}
    </p>
  ) : null

/** What a control is for, above it: an input of these attributes, or what stands inside. */
export const Labelled = ({ label, children, ...input }: InputHTMLAttributes<HTMLInputElement> & { label: ComponentChildren }) => (
  <label class="field">
    <span>{label}</span>
    {children ?? <input {...input} />}
  </label>
)

/**
 * A list to choose from. `of`: names, or words by their values. `none`: what nothing is called. `choose` is told the
 * value that was chosen.
 */
export function Select({
  of,
  none,
  choose,
  ...more
}: Omit<SelectHTMLAttributes<HTMLSelectElement>, 'role'> & {
  of: Text | Readonly<Record<string, string>>
  none?: string | undefined
  choose?: (value: string) => void
}) {
  const entries = Array.isArray(of) ? (of as Text).map((name) => [name, name] as const) : Object.entries(of)
  return (
    <select {...more} onChange={(event) => choose?.(event.currentTarget.value)}>
      {none !== undefined && <option value="">{none}</option>}
      {entries.map(([value, words]) => (
        <option key={value} value={value} selected={value === more.defaultValue}>
          {words}
        </option>
      ))}
    </select>
  )
}

/** A line to search by. */
export const Search = ({ label, placeholder, line }: { label: string; placeholder: string; line: Signal<string> }) => (
  <label class="search">
    <span class="sr">{label}</span>
    <input type="search" placeholder={placeholder} value={line.value} onInput={(event) => (line.value = event.currentTarget.value)} />
  </label>
)

/** A form that the browser sends nowhere: `act` is told what was written; after true it is as it was at first. */
export function Form({
  act,
  ...more
}: FormHTMLAttributes<HTMLFormElement> & { act: (said: FormData, form: HTMLFormElement) => Promise<unknown> }) {
  const send = async (event: SubmitEvent & { currentTarget: HTMLFormElement }): Promise<void> => {
    event.preventDefault()
    const form = event.currentTarget
    if ((await act(new FormData(form, event.submitter), form)) === true) form.reset()
  }
  return <form {...more} onSubmit={(event) => void send(event)} />
}

/** Names, tags and keys that were written, without the blanks around them. */
export const textOf = (said: FormData, name: string): string => {
  const text = said.get(name)
  return typeof text === 'string' ? text.trim() : ''
}

/** What sends a form. */
export const Main = ({ children, ...more }: ButtonHTMLAttributes<HTMLButtonElement>) => (
  <button type="submit" class="main" {...more}>
    {children}
  </button>
)

/** A dialog that is open as long as it is there. */
export function Dialog({ title, close, children }: { title: string; close: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null)
  useEffect(() => dialog.current?.showModal(), [])
  return (
    <dialog ref={dialog} onClose={close} aria-label={title}>
      <h2>{title}</h2>
      {children}
    </dialog>
  )
}

/** Keys that are pressed anywhere on the page while this is shown. */
export function useKeys(pressed: (event: KeyboardEvent) => void): void {
  useEffect(() => {
    addEventListener('keydown', pressed)
    return () => removeEventListener('keydown', pressed)
  })
}
