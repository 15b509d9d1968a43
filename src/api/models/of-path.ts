/** The model that a path names, with the kind that the query says. */
import { apiError } from '../../errors.ts'
import type { Catalogue } from '../../models/catalogue.ts'
import type { Listed } from '../../models/listing.ts'
import { meant } from '../../models/meant.ts'
import type { Kind } from '../../models/verdict.ts'

/** @throws DarkroomError `api.not_found`, `model.unknown` for another kind, `model.ambiguous` */
export const modelOf =
  (models: Pick<Catalogue, 'find'>) =>
  async (id: string, kind: Kind | undefined): Promise<Listed> => {
    const found = meant(await models.find(id), id, kind, 'kind')
    if (found) return found
    throw apiError('not_found', `there is no model ${JSON.stringify(id.slice(0, 200))}`, { remedy: 'GET /v1/models lists all models.' })
  }
