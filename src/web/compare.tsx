/** Two pictures over each other: a line between them that is moved, or one after the other by the arrow keys. */
import { useEffect, useSignal } from './view.ts'
import type { Session } from '../client/types.ts'
import { get, quietly } from './api.ts'
import { ids as listed, note, sessionOf } from './live.ts'
import { useKeys } from './parts.tsx'
import { Picture } from './picture.tsx'
import { Room } from './room.tsx'
import { linkTo } from './route.ts'
import { pictureOf, titleOf } from './session-view.ts'
import { Told } from './told.tsx'

export function Compare({ id }: { id: string }) {
  const pair = id.split(',').slice(0, 2)
  const at = useSignal(50)
  useEffect(
    () => pair.forEach((each) => sessionOf(each) ?? quietly(get<Session>(`/sessions/${encodeURIComponent(each)}`).then(note))),
    [id],
  )
  // Read again when the list changes.
  void listed.value
  useKeys((event) => {
    if (event.target instanceof HTMLInputElement) return
    if (event.key === 'ArrowLeft') at.value = 100
    else if (event.key === 'ArrowRight') at.value = 0
    else if (event.key === ' ') at.value = at.value > 50 ? 0 : 100
    else return
    event.preventDefault()
  })
  const [a, b] = pair.flatMap((each) => sessionOf(each)?.value ?? [])
  if (!a || !b) return <p class="empty">There are not two such sessions to compare.</p>
  const [one, two] = [a, b].map(pictureOf)
  if (!one || !two) return <p class="empty">One of the two has no picture yet.</p>
  return (
    <Room
      name="compare"
      title="Compare"
      bar={
        <>
          <div class="chips" role="group" aria-label="Which is seen">
            {Object.entries({ A: 100, Both: 50, B: 0 }).map(([name, share]) => (
              <button key={name} aria-pressed={at.value === share} onClick={() => (at.value = share)}>
                {name}
              </button>
            ))}
          </div>
          <a href={linkTo('table')}>Table</a>
        </>
      }
    >
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
      <Told room="compare" id={id} />
    </Room>
  )
}
