/** Buttons for what can be done with a session. */
import type { Session } from '../client/types.ts'
import { attempt } from './api.ts'
import { Star } from './picture.tsx'
import { act, allows, isStarred, starred, tag, verbs, type Verb } from './session-view.ts'
import { capital } from './words.ts'

/** `told` hears what became of it. */
export const Verbs = ({
  session,
  without = [],
  told,
}: {
  session: Session
  without?: readonly Verb[]
  told?: (verb: Verb, made: Session | undefined) => unknown
}) => (
  <>
    {verbs
      .filter((verb) => !without.includes(verb) && allows(session, verb))
      .map((verb) => (
        <button
          key={verb}
          class={verb === 'delete' ? 'plain' : undefined}
          onClick={() => void act(session.id, verb).then((made) => told?.(verb, made))}
        >
          {capital(verb)}
        </button>
      ))}
  </>
)

export const Starring = ({ session, label, look }: { session: Session; label: string; look: string }) => (
  <button class={look} aria-label={label} aria-pressed={isStarred(session)} onClick={() => toggleStar(session)}>
    <Star />
  </button>
)

export const toggleStar = (session: Session): void => void attempt(() => tag(session, starred, !isStarred(session)))
