/** Going on from a state of a session another time, with the same request or a changed one. */
import { signal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { Session, SessionState } from '../client/types.ts'
import { attempt, may, request } from './api.ts'
import { pathsIn } from './diagram.tsx'
import { go } from './route.ts'
import { atTime } from './words.ts'

/** The state that is asked about. */
export const point = signal<SessionState | null>(null)

export const nameOf = ({ value }: SessionState): string => pathsIn(value).at(-1) ?? ''

/** The state in which a step of that name was first open. */
export const stateOf = (step: string, states: readonly SessionState[]): SessionState | undefined =>
  states.find(({ open }) => open.includes(step))

/** Where it was, each with the way to go on from there. */
export function States({ states }: { states: readonly SessionState[] }) {
  if (!may('submit') || states.length === 0) return null
  return (
    <details>
      <summary>Fork</summary>
      <ol class="states">
        {states.map((state) => (
          <li key={state.entry}>
            <span>
              {nameOf(state)} <small>{atTime(state.at)}</small>
            </span>
            <button type="button" onClick={() => (point.value = state)}>
              Fork here
            </button>
          </li>
        ))}
      </ol>
    </details>
  )
}

export function ForkDialog({ id }: { id: string }) {
  const dialog = useRef<HTMLDialogElement>(null)
  useEffect(() => dialog.current?.showModal(), [])
  const state = point.value
  if (!state) return null
  const close = (): void => void (point.value = null)
  const fork = async (form: HTMLFormElement): Promise<void> => {
    const said = Object.fromEntries(new FormData(form)) as Record<string, string>
    const made = await attempt(() => {
      const changed = said['input']?.trim() ? { input: JSON.parse(said['input']) as unknown } : {}
      const call = said['call'] ? { call: Number(said['call']) } : {}
      return request<Session>('POST', `/sessions/${id}/fork`, { from: { entry: state.entry, ...call }, ...changed })
    })
    close()
    if (made) go('session', made.id)
  }
  return (
    <dialog ref={dialog} onClose={close} aria-labelledby="fork-name">
      <h2 id="fork-name">Go on from {nameOf(state)}</h2>
      <form
        class="schema"
        onSubmit={(event) => {
          event.preventDefault()
          void fork(event.currentTarget)
        }}
      >
        {state.calls.length > 0 && (
          <label class="field">
            <span>From the call</span>
            <select name="call">
              <option value="">the beginning of its step</option>
              {state.calls.map((call) => (
                <option key={call}>{call}</option>
              ))}
            </select>
          </label>
        )}
        <label class="field">
          <span>What is to be other, as JSON</span>
          <input name="input" placeholder='{"steps": 30}' spellcheck={false} />
        </label>
        <div class="verbs">
          <button type="submit" class="main">
            Fork
          </button>
          <button type="button" onClick={close}>
            Leave it
          </button>
        </div>
      </form>
    </dialog>
  )
}
