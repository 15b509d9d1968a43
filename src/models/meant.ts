/** Which of the models that have one name somebody means. */
import { modelError } from './errors.ts'
import type { Listed } from './listing.ts'
import type { Kind } from './verdict.ts'

/** `drawing`: the first that draws, as requests for pictures take it. */
export type Meant = Kind | 'drawing' | undefined

/**
 * The one of that kind. Without a kind the one that draws, else the one that is understood, else the only one there is;
 * undefined where there is none of that name.
 * @throws DarkroomError `model.unknown` where the name is of other kinds; `model.ambiguous` where several kinds have it
 * and nothing says which
 */
export function meant(found: readonly Listed[], id: string, kind: Meant, field: string): Listed | undefined {
  if (found.length === 0) return undefined
  const name = JSON.stringify(id.slice(0, 200))
  if (kind === 'drawing') return found[0]
  if (kind !== undefined) {
    const one = found.find(({ entry }) => entry.verdict.kind === kind)
    if (one) return one
    throw modelError('unknown', `${name} is no ${kind} but a ${kindsOf(found).join(' and a ')}`, {
      field,
      remedy: `Name the kind that is meant, or a model that GET /v1/models?kind=${kind} lists.`,
    })
  }
  for (const among of [found.filter(({ entry }) => entry.drawing), found.filter(({ entry }) => !entry.verdict.reason), found]) {
    if (among.length === 1) return among[0]
    if (among.length > 1)
      throw modelError('ambiguous', `${name} may be a ${kindsOf(among).join(' or a ')}`, { field, details: { kinds: kindsOf(among) } })
  }
  return undefined
}

export const kindsOf = (found: readonly Listed[]): Kind[] => found.map(({ entry }) => entry.verdict.kind)
