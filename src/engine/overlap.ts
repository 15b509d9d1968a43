/** What happens when a schedule falls due while the session before has not ended. */
export const overlaps = ['skip', 'queue', 'replace', 'allow'] as const
export type Overlap = (typeof overlaps)[number]
