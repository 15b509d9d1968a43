/** The request of a picture, with the model that has its name or its hash here. */
import type { EnginePort } from '../context.ts'
import { requestOfFile, type PictureRequest } from '../../workflows/picture-request.ts'

/** Digits of a hash that tell one model from another; programs write ten. */
const fewestDigits = 8

/** @throws DarkroomError `artifact.untold` */
export async function pictureRequest(file: Uint8Array, models: EnginePort['models']): Promise<PictureRequest> {
  const request = requestOfFile(file)
  const { input, modelHash, unread } = request
  const { model, ...rest } = input
  if (typeof model !== 'string') return request
  if ((await models.find(model)).length > 0) return request
  const hash = modelHash?.toLowerCase().replace(/^0x/, '') ?? ''
  const byHash = models.list().find(({ bodyHash, entry }) => {
    const known = [bodyHash, entry.identity?.sha256, entry.identity?.shortHash]
    return hash.length >= fewestDigits && known.some((each) => each?.startsWith(hash))
  })
  if (byHash) return { ...request, input: { ...rest, model: byHash.id } }
  const why = 'there is no model of that name or hash here: without it, the usual one draws'
  return { ...request, input: rest, unread: [...unread, { name: 'model', value: model, why }] }
}
