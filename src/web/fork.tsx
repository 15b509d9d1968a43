/** Going on from a state of a session another time, with the same request or a changed one. */
import { signal } from './signals.ts'
import type { Session, SessionState } from '../client/types.ts'
import { attempt, may, request } from './api.ts'
import { pathsIn } from './diagram.tsx'
import { Dialog, Form, Labelled, Main, Select, textOf } from './parts.tsx'
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
            <button onClick={() => (point.value = state)}>Fork here</button>
          </li>
        ))}
      </ol>
    </details>
  )
}

export function ForkDialog({ id }: { id: string }) {
  const state = point.value
  if (!state) return null
  const close = (): void => void (point.value = null)
  const fork = async (said: FormData): Promise<void> => {
    const [input, call] = [textOf(said, 'input'), textOf(said, 'call')]
    const made = await attempt(async () =>
      request<Session>('POST', `/sessions/${id}/fork`, {
        from: { entry: state.entry, ...(call && { call: Number(call) }) },
        ...(input && { input: JSON.parse(input) as unknown }),
      }),
    )
    close()
    if (made) go('session', made.id)
  }
  return (
    <Dialog title={`Go on from ${nameOf(state)}`} close={close}>
      <Form class="schema" act={fork}>
        {state.calls.length > 0 && (
          <Labelled label="From the call">
            <Select name="call" none="the beginning of its step" of={state.calls.map(String)} />
          </Labelled>
        )}
        <Labelled label="What is to be other, as JSON" name="input" placeholder='{"steps": 30}' spellcheck={false} />
        <div class="verbs">
          <Main>Fork</Main>
          <button onClick={close}>Leave it</button>
        </div>
      </Form>
    </Dialog>
  )
}
