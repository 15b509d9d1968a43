/** A request that is used again, as much of it as one likes. */
import { useEffect, useSignal } from './view.ts'
import { wordsOf } from './api.ts'
import { fill, groups, groupOf, isEmpty, type Fields, type Group } from './form.ts'
import { Dialog } from './parts.tsx'
import { go } from './route.ts'
import { listed } from './words.ts'

export function Again({ request, close }: { request: () => Promise<Fields>; close: () => void }) {
  const found = useSignal<Fields | string | undefined>(undefined)
  const chosen = useSignal<ReadonlySet<Group>>(new Set(groups))
  useEffect(() => {
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
    <Dialog title="Use again" close={close}>
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
        <button class="main" disabled={present.length === 0} onClick={use}>
          Fill the form
        </button>
        <button onClick={close}>Leave it</button>
      </div>
    </Dialog>
  )
}

const told = (fields: Fields, group: Group): string =>
  listed(
    ...Object.entries(fields).map(
      ([name, value]) => groupOf(name) === group && (typeof value === 'string' || typeof value === 'number') && String(value),
    ),
  ).slice(0, 120)
