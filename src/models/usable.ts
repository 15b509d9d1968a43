/** The model that a request for a picture names, or why it cannot be used. */
import type { DarkroomError } from '../errors.ts'
import type { Model } from './entry.ts'
import { modelError } from './errors.ts'
import type { Listed } from './listing.ts'
import { nearest } from './nearest.ts'
import { annotatedVae } from './own-vae.ts'
import type { Kind } from './verdict.ts'

const draws = ({ entry }: Listed): boolean => entry.drawing !== null

/** @throws DarkroomError `model.unusable` */
export function usable(found: Listed, all: readonly Listed[], id: string, field: string): Model {
  const { entry, bodyHash } = found
  if (!entry.drawing) {
    const { reason } = entry.verdict
    // Reasons of headers are whole sentences.
    const why = (entry.obstacle ?? 'it does not draw').replace(/\.$/, '')
    throw modelError('unusable', `model ${JSON.stringify(id)} cannot be used: ${why}${nearest(id, all, draws)}`, {
      field,
      ...(reason && { remedy: reason.remedy }),
    })
  }
  if (bodyHash === null && found.id !== entry.name)
    throw modelError('unusable', `model ${JSON.stringify(id)} has the name of another one, and has not been hashed yet`, {
      field,
      remedy: 'Try again in a moment, by the name with the hash that GET /v1/models then shows.',
    })
  const recommended = { ...entry.drawing.recommended, ...found.annotation?.settings }
  const vae = annotatedVae(found, all, field)
  return { id: found.id, bodyHash, path: entry.path, ...entry.drawing, recommended, ...(vae && { vae }) }
}

export const unknown = (id: string, all: readonly Listed[], field: string): DarkroomError =>
  modelError('unknown', `there is no model ${JSON.stringify(id)}${nearest(id, all, draws)}`, { field })

export const unlisted = (id: string, field: string): DarkroomError =>
  modelError('unlisted', `no host that has told of its models has ${JSON.stringify(id.slice(0, 200))}, and not all have told`, { field })
/** Of one that only its kind tells apart from another that draws. */
export const unhashed = (id: string, kind: Kind, field: string): DarkroomError =>
  modelError('unhashed', `${kind} ${JSON.stringify(id.slice(0, 200))} has the name of another model that draws, and has no hash yet`, {
    field,
    remedy: 'Try again in a moment: it is being hashed.',
  })
