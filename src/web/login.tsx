/** The way in, where the farm asks for an API key. */
import { useSignal } from './view.ts'
import { enter, wordsOf } from './api.ts'
import { Fault, Form, Labelled, Main, textOf } from './parts.tsx'

export function Login() {
  const fault = useSignal<string | undefined>(undefined)
  const isBusy = useSignal(false)
  const submit = async (said: FormData): Promise<void> => {
    isBusy.value = true
    fault.value = await enter(textOf(said, 'key')).then(() => undefined, wordsOf)
    isBusy.value = false
  }
  return (
    <main class="login">
      <Form act={submit}>
        <h1>Darkroom</h1>
        <Labelled label="API key" type="password" name="key" required autocomplete="current-password" aria-describedby="login-hint" />
        <Fault>{fault.value}</Fault>
        <Main disabled={isBusy.value}>Come in</Main>
        <p id="login-hint" class="hint">
          <code>darkroom keys add</code> makes one. This browser keeps it until it is closed, where no script can read it.
        </p>
      </Form>
    </main>
  )
}
