/** A model that is used beside the one that draws, as a request names it. */
import type { Catalogue } from './catalogue.ts'
import { modelError } from './errors.ts'
import type { Listed } from './listing.ts'
import { kindsOf } from './meant.ts'
import { nearest } from './nearest.ts'
import type { Kind } from './verdict.ts'

/**
 * The model of that kind and name. Its hash is asked for when it is not known.
 * @throws DarkroomError `model.unknown` with the nearest name, `model.unusable`; `model.unlisted` while a host has not
 * told what it has
 */
export async function ofKind(
  models: Pick<Catalogue, 'find' | 'list' | 'named' | 'want'>,
  kind: Kind,
  id: string,
  field: string,
): Promise<Listed> {
  const found = (await models.find(id)).find(({ entry }) => entry.verdict.kind === kind)
  if (!found) throw await unknown(models, kind, id, field)
  const { reason } = found.entry.verdict
  if (reason)
    throw modelError('unusable', `${kind} ${JSON.stringify(id)} cannot be used: ${reason.message}`, { field, remedy: reason.remedy })
  if (found.bodyHash !== null) return found
  if (found.id !== found.entry.name)
    throw modelError('unusable', `${kind} ${JSON.stringify(id)} has the name of another one, and has not been hashed yet`, {
      field,
      remedy: 'Try again in a moment, by the name with the hash that GET /v1/models then shows.',
    })
  await models.want({ id, kind })
  return found
}

/**
 * Every model of that kind that was understood.
 * @throws DarkroomError `model.unlisted` while a host has not told what it has, and no other has any
 */
export async function allOfKind(
  models: Pick<Catalogue, 'find' | 'list' | 'named' | 'read'>,
  kind: Kind,
  field: string,
): Promise<readonly Listed[]> {
  const found = (): Listed[] => models.list().filter(({ entry: { verdict } }) => verdict.kind === kind && !verdict.reason)
  await models.read()
  if (found().length > 0) return found()
  const refused = await models.named(`any ${kind}`, kind, field).catch((error: unknown) => error as Error & { code?: string })
  if ('code' in refused && refused.code === 'model.unlisted') throw refused
  return found()
}

async function unknown(models: Pick<Catalogue, 'find' | 'list' | 'named'>, kind: Kind, id: string, field: string): Promise<Error> {
  const others = await models.find(id)
  // Of no host that has told yet: then this throws.
  const refused = others.length === 0 && (await models.named(id, kind, field).catch((error: unknown) => error as Error & { code?: string }))
  if (refused && 'code' in refused && refused.code !== 'model.unknown') return refused
  const near = nearest(id, models.list(), ({ entry: { verdict } }) => verdict.kind === kind && !verdict.reason)
  const name = JSON.stringify(id.slice(0, 200))
  const what = others.length > 0 ? `${name} is no ${kind} but a ${kindsOf(others).join(' and a ')}` : `there is no ${kind} ${name}`
  return modelError('unknown', `${what}${near}`, { field, remedy: `Name one that GET /v1/models?kind=${kind} lists.` })
}
