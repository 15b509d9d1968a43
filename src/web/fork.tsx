/** Going on from a state of a session another time, with the same request or a changed one. */
import { signal } from './signals.ts'
import type { Session, SessionState } from '../client/types.ts'
import { attempt, request } from './api.ts'
import { Dialog, Form, Labelled, Main, Select, textOf } from './parts.tsx'
import { go } from './route.ts'

/** The state that is asked about, and what it is called. */
export const point = signal<{ session: string; state: SessionState; name: string } | null>(null)

export function ForkDialog() {
  if (!point.value) return null
  const { session, state, name } = point.value
  const close = (): void => void (point.value = null)
  const fork = async (said: FormData): Promise<void> => {
    const [input, call] = [textOf(said, 'input'), textOf(said, 'call')]
    const made = await attempt(async () =>
      request<Session>('POST', `/sessions/${session}/fork`, {
        from: { entry: state.entry, ...(call && { call: Number(call) }) },
        ...(input && { input: JSON.parse(input) as unknown }),
      }),
    )
    close()
    if (made) go('session', made.id)
  }
  return (
    <Dialog title={`Go on from ${name}`} close={close}>
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
