/** What a request means by the name of a model that need not draw by itself. */
import { wantedOf } from '../../models/entry.ts'
import type { Kind } from '../../models/verdict.ts'
import type { Catalogue } from '../operation.ts'
import type { WantedModel } from '../values.ts'

/**
 * The model of that name: one that draws, with the VAE that it is annotated with, else of a kind that `takes`.
 * @throws DarkroomError `model.unknown` with the names of those that draw, `model.unusable`; `model.unlisted` while a
 * host has not told what it has
 */
export async function wanted(model: string, catalogue: Catalogue, takes: (kind: Kind) => boolean): Promise<WantedModel> {
  // What nobody lists is refused by `catalogue.model`, whose words help more.
  const found = await catalogue.named(model).catch(() => undefined)
  const kind = found && !found.entry.drawing ? found.entry.verdict.kind : undefined
  if (kind === undefined || !takes(kind)) return wantedOf(await catalogue.model(model))
  const { id, bodyHash } = await catalogue.ofKind(kind, model, 'input.model')
  return { id, bodyHash, kind }
}
