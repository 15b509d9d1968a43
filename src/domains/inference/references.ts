/** What the steps of diffusion share of the pictures that an edit is shown. */
import { maxReferences, type PicturePin } from '../values.ts'

/** Files that may be given, in the order of the request. */
export const referenceFiles = Array.from({ length: maxReferences }, (_, n) => `reference${n}`)

export const filesOfReferences = (references: readonly PicturePin[] = []): Record<string, string> =>
  Object.fromEntries(references.map(({ sha256 }, n) => [`reference${n}`, sha256]))
