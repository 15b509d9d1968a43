/** How texts for pictures are written: what of them is more than words. */
import type { ImageRequest } from './values.ts'

/** Whether a text says something that `plain` would not hear. */
export const usesSyntax = (text: string): boolean => /[([]|\\[\\()[\]]|\bBREAK\b/.test(text)

type Texts = { prompt?: string | undefined; negativePrompt?: string | undefined }

/** All texts of a request, those of its passes too. */
export const textsOf = ({
  prompt,
  negativePrompt,
  hires,
  detail = [],
}: Pick<ImageRequest, 'prompt' | 'negativePrompt'> & { hires?: Texts | undefined; detail?: readonly Texts[] | undefined }): string[] =>
  [{ prompt, negativePrompt }, hires ?? {}, ...detail].flatMap((each) => [each.prompt ?? '', each.negativePrompt ?? ''])
