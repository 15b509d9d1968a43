/** The way in, where the farm asks for an API key. */
import { useSignal } from '@preact/signals'
import { enter, wordsOf } from './api.ts'

export function Login() {
  const fault = useSignal<string | undefined>(undefined)
  const isBusy = useSignal(false)
  const submit = async (form: HTMLFormElement): Promise<void> => {
    isBusy.value = true
    const key = new FormData(form).get('key')
    fault.value = await enter(typeof key === 'string' ? key.trim() : '').then(() => undefined, wordsOf)
    isBusy.value = false
  }
  return (
    <main class="login">
      <form
        onSubmit={(event) => {
          event.preventDefault()
          void submit(event.currentTarget)
        }}
      >
        <h1>Darkroom</h1>
        <label class="field">
          <span>API key</span>
          <input type="password" name="key" required autocomplete="current-password" aria-describedby="login-hint" />
        </label>
        {fault.value !== undefined && (
          <p class="fault" role="alert">
            {fault.value}
          </p>
        )}
        <button type="submit" class="main" disabled={isBusy.value}>
          Come in
        </button>
        <p id="login-hint" class="hint">
          <code>darkroom keys add</code> makes one. This browser keeps it until it is closed, where no script can read it.
        </p>
      </form>
    </main>
  )
}
