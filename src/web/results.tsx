/** What became of what was drawn last. */
import { signal } from './signals.ts'
import { sessionOf } from './live.ts'
import { Picture } from './picture.tsx'
import { ProgressBar, progressWords } from './progress.tsx'
import { linkTo } from './route.ts'
import { Dot } from './parts.tsx'
import { pictureOf, titleOf } from './session-view.ts'
import { Verbs } from './verbs.tsx'

/** Sessions of this form by their ids, newest first. */
export const drawn = signal<readonly string[]>([])

export function Results() {
  const [latest, ...others] = drawn.value.flatMap((id) => sessionOf(id)?.value ?? [])
  if (!latest) return <div class="results empty">What you draw appears here.</div>
  const shown = pictureOf(latest)
  const title = titleOf(latest)
  return (
    <div class="results" aria-live="off">
      <a
        class={`sheet ${latest.status}`}
        href={linkTo('session', latest.id)}
        aria-label={`${title}, ${latest.status}`}
        style={{ '--shape': shown ? shown.width / shown.height : 1 }}
      >
        <Picture shown={shown} alt={title} />
      </a>
      <ProgressBar session={latest} label="Progress of the last picture" />
      <p class="state" role="status">
        <Dot of={latest.status} />
        <strong>{latest.status}</strong> {latest.endedAt === null ? progressWords(latest) : (latest.error?.message ?? '')}
      </p>
      <div class="verbs">
        <Verbs session={latest} without={['delete', 'retry']} />
      </div>
      {others.length > 0 && (
        <div class="strip">
          {others.map((session) => (
            <a key={session.id} href={linkTo('session', session.id)} aria-label={`${titleOf(session)}, ${session.status}`}>
              <Picture shown={pictureOf(session)} isSmall />
            </a>
          ))}
        </div>
      )}
    </div>
  )
}
