/** A request that is used again, as much of it as one likes. */
import { useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import { wordsOf } from './api.ts'
import { fill, groups, groupOf, isEmpty, type Fields, type Group } from './form.ts'
import { go } from './route.ts'

export function Again({ request, close }: { request: () => Promise<Fields>; close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null)
  const found = useSignal<Fields | string | undefined>(undefined)
  const chosen = useSignal<ReadonlySet<Group>>(new Set(groups))
  useEffect(() => {
    dialog.current?.showModal()
    request().then(
      (fields) => (found.value = fields),
      (error: unknown) => (found.value = wordsOf(error)),
    )
  }, [])
  const fields = typeof found.value === 'object' ? found.value : {}
  const present = groups.filter((group) => Object.keys(fields).some((name) => groupOf(name) === group))
  const toggle = (group: Group): void => {
    const now = new Set(chosen.value)
    if (!now.delete(group)) now.add(group)
    chosen.value = now
  }
  const use = (): void => {
    fill(Object.fromEntries(Object.entries(fields).filter(([name]) => chosen.value.has(groupOf(name)))))
    close()
    go('draw')
  }
  return (
    <dialog ref={dialog} onClose={close} aria-labelledby="again-name">
      <h2 id="again-name">Use again</h2>
      {typeof found.value === 'string' && <p role="alert">{found.value}</p>}
      <fieldset>
        <legend class="sr">What of it</legend>
        {present.map((group) => (
          <label key={group} class="tick">
            <input type="checkbox" checked={chosen.value.has(group)} onChange={() => toggle(group)} />
            <span>{group}</span> <small>{told(fields, group)}</small>
          </label>
        ))}
      </fieldset>
      {!isEmpty() && <p class="hint">It takes the place of what stands in the form.</p>}
      <div class="verbs">
        <button type="button" class="main" disabled={present.length === 0} onClick={use}>
          Fill the form
        </button>
        <button type="button" onClick={close}>
          Leave it
        </button>
      </div>
    </dialog>
  )
}

const told = (fields: Fields, group: Group): string =>
  Object.entries(fields)
    .filter(([name, value]) => groupOf(name) === group && (typeof value === 'string' || typeof value === 'number') && value !== '')
    .map(([, value]) => String(value))
    .join(' · ')
    .slice(0, 120)
