/** What became of what was drawn last. */
import { signal } from '@preact/signals'
import { sessionOf } from './live.ts'
import { Picture } from './picture.tsx'
import { ProgressBar, progressWords } from './progress.tsx'
import { linkTo } from './route.ts'
import { act, allows, imagesOf, previewOf, titleOf, verbNames, verbs } from './session-view.ts'

/** Sessions of this form by their ids, newest first. */
export const drawn = signal<readonly string[]>([])

export function Results() {
  const [latest, ...others] = drawn.value.flatMap((id) => sessionOf(id)?.value ?? [])
  if (!latest) return <div class="results empty">What you draw appears here.</div>
  const shown = imagesOf(latest)[0] ?? previewOf(latest)
  const title = titleOf(latest)
  return (
    <div class="results" aria-live="off">
      <a
        class={`sheet ${latest.status}`}
        href={linkTo('session', latest.id)}
        aria-label={`${title}, ${latest.status}`}
        style={{ '--shape': shown ? shown.width / shown.height : 1 }}
      >
        {shown ? <Picture shown={shown} alt={title} /> : <span class="no-picture" aria-hidden="true" />}
      </a>
      <ProgressBar session={latest} label="Progress of the last picture" />
      <p class="state" role="status">
        <i class={`dot ${latest.status}`} aria-hidden="true" />
        <strong>{latest.status}</strong> {latest.endedAt === null ? progressWords(latest) : (latest.error?.message ?? '')}
      </p>
      <div class="verbs">
        {verbs
          .filter((verb) => verb !== 'delete' && verb !== 'retry' && allows(latest, verb))
          .map((verb) => (
            <button key={verb} type="button" onClick={() => void act(latest.id, verb)}>
              {verbNames[verb]}
            </button>
          ))}
      </div>
      {others.length > 0 && (
        <div class="strip">
          {others.map((session) => {
            const small = imagesOf(session)[0] ?? previewOf(session)
            return (
              <a key={session.id} href={linkTo('session', session.id)} aria-label={`${titleOf(session)}, ${session.status}`}>
                {small ? <Picture shown={small} alt="" isSmall /> : <span class="no-picture" aria-hidden="true" />}
              </a>
            )
          })}
        </div>
      )}
    </div>
  )
}
