/** The names nearest to one that there is not. */
import { closest, distance } from 'fastest-levenshtein'
import type { Listed } from './listing.ts'

/** More names than this are not put in order for a message. */
const maxNear = 2000

/** The usable names nearest to one that is not, as the end of a sentence. */
export function nearest(id: string, listed: readonly Listed[], isUsable: (listed: Listed) => boolean): string {
  const usable = listed.filter(isUsable).map((each) => each.id)
  if (usable.length === 0) return '; none can be used here'
  const near = usable.length > maxNear ? [closest(id, usable)] : usable.toSorted((a, b) => distance(id, a) - distance(id, b)).slice(0, 5)
  return usable.length <= 5 ? `; usable are: ${usable.join(', ')}` : `; usable are, among ${usable.length}: ${near.join(', ')}`
}
