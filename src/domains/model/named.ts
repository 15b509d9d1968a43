/** What a request means by the name of a model that need not draw by itself. */
import { DarkroomError } from '../../errors.ts'
import { wantedOf } from '../../models/entry.ts'
import type { Kind } from '../../models/verdict.ts'
import type { Catalogue } from '../operation.ts'
import type { WantedModel } from '../values.ts'

/**
 * The model of that name and kind; without a kind one that draws, with the VAE that it is annotated with, else of one
 * that `takes`.
 * @throws DarkroomError `model.unknown` with the names of those that draw, `model.unusable`, `model.ambiguous`;
 * `model.unlisted` while a host has not told what it has
 */
export async function wanted(
  { model, kind }: { model: string; kind?: Kind | undefined },
  catalogue: Catalogue,
  takes: (kind: Kind) => boolean,
): Promise<WantedModel> {
  // What nobody lists is refused by `catalogue.model`, whose words help more.
  const found = await catalogue.named(model, kind).catch((error: unknown) => {
    if (error instanceof DarkroomError && error.code === 'model.ambiguous') throw error
    return undefined
  })
  const other = found && !found.entry.drawing ? found.entry.verdict.kind : undefined
  if (other === undefined || !takes(other)) return wantedOf(await catalogue.model(model, kind))
  const { id, bodyHash } = await catalogue.ofKind(other, model, 'input.model')
  return { id, bodyHash, kind: other }
}
