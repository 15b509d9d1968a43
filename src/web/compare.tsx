/** Two pictures over each other: a line between them that is moved, or one after the other by the arrow keys. */
import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { Session } from '../client/types.ts'
import { get, quietly } from './api.ts'
import { ids as listed, note, sessionOf } from './live.ts'
import { Picture } from './picture.tsx'
import { linkTo } from './route.ts'
import { imagesOf, previewOf, titleOf } from './session-view.ts'

/** The same of both is not told. */
const told = ['prompt', 'negativePrompt', 'model', 'seed', 'width', 'height', 'steps', 'guidance', 'sampler', 'schedule', 'strength']

export function Compare({ id }: { id: string }) {
  const pair = id.split(',').slice(0, 2)
  const at = useSignal(50)
  useEffect(
    () => pair.forEach((each) => sessionOf(each) ?? quietly(get<Session>(`/sessions/${encodeURIComponent(each)}`).then(note))),
    [id],
  )
  // Read again when the list changes.
  void listed.value
  const keys = (event: KeyboardEvent): void => {
    if (event.target instanceof HTMLInputElement) return
    if (event.key === 'ArrowLeft') at.value = 100
    else if (event.key === 'ArrowRight') at.value = 0
    else if (event.key === ' ') at.value = at.value > 50 ? 0 : 100
    else return
    event.preventDefault()
  }
  useEffect(() => {
    addEventListener('keydown', keys)
    return () => removeEventListener('keydown', keys)
  }, [])
  const [a, b] = pair.flatMap((each) => sessionOf(each)?.value ?? [])
  if (!a || !b) return <p class="empty">There are not two such sessions to compare.</p>
  const [one, two] = [a, b].map((session) => imagesOf(session)[0] ?? previewOf(session))
  if (!one || !two) return <p class="empty">One of the two has no picture yet.</p>
  const differing = told.filter((name) => JSON.stringify(a.input[name]) !== JSON.stringify(b.input[name]))
  return (
    <section class="compare room" aria-labelledby="compare-name">
      <header class="bar">
        <h1 id="compare-name">Compare</h1>
        <div class="chips" role="group" aria-label="Which is seen">
          {(
            [
              ['A', 100],
              ['Both', 50],
              ['B', 0],
            ] as const
          ).map(([name, share]) => (
            <button key={name} type="button" aria-pressed={at.value === share} onClick={() => (at.value = share)}>
              {name}
            </button>
          ))}
        </div>
        <a href={linkTo('table')}>Table</a>
      </header>
      <div class="pair" style={{ '--at': `${at.value}%`, '--shape': one.width / one.height }}>
        <Picture shown={two} alt={`B: ${titleOf(b)}`} />
        <Picture shown={one} alt={`A: ${titleOf(a)}`} />
        <input
          type="range"
          min="0"
          max="100"
          aria-label="How much of A is seen"
          value={at.value}
          onInput={({ currentTarget }) => (at.value = currentTarget.valueAsNumber)}
        />
      </div>
      <p class="hint">Arrow keys show one or the other; space changes between them.</p>
      <table class="plain-table">
        <thead>
          <tr>
            <th scope="col">
              <span class="sr">What differs</span>
            </th>
            {[a, b].map((session, i) => (
              <th key={session.id} scope="col">
                <a href={linkTo('session', session.id)}>{`${'AB'[i]}: ${titleOf(session)}`}</a>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {differing.map((name) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              {[a, b].map(({ id: each, input }) => (
                <td key={each}>{typeof input[name] === 'string' ? input[name] : (JSON.stringify(input[name]) ?? '–')}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  )
}
