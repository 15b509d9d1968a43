/** What a step uses beside its model, as the Python child is told of it: with the places of the files on this host. */
import { AdapterPin, EmbeddingPin, ModelPin } from '../domains/values.ts'
import type { Catalogue } from '../models/catalogue.ts'
import type { Kind } from '../models/verdict.ts'
import type { AdapterRef, ClassifierRef, EmbeddingRef } from './python/protocol.ts'

/**
 * Adapters, embeddings, classifiers and what restores faces of a step's input, with paths; what the input does not say
 * is left out.
 * @throws DarkroomError `model.missing` for one that this host has not: the step goes to a worker that has it
 */
export async function besideHere(
  { adapters, embeddings, classifiers, detector, restorer }: Record<string, unknown>,
  models: Pick<Catalogue, 'shelved'>,
): Promise<{
  adapters?: AdapterRef[]
  embeddings?: EmbeddingRef[]
  classifiers?: ClassifierRef[]
  detector?: ClassifierRef
  restorer?: ClassifierRef
}> {
  const place = async (kind: Kind, pin: ModelPin) => ({ ...pin, path: (await models.shelved({ ...pin, kind })).path })
  const placed =
    (kind: Kind) =>
    async <Pin extends { model: ModelPin }>(pin: Pin) => ({ ...pin, model: await place(kind, pin.model) })
  return {
    ...(adapters !== undefined && { adapters: await Promise.all(AdapterPin.array().parse(adapters).map(placed('lora'))) }),
    ...(embeddings !== undefined && { embeddings: await Promise.all(EmbeddingPin.array().parse(embeddings).map(placed('embedding'))) }),
    ...(classifiers !== undefined && {
      classifiers: await Promise.all(
        ModelPin.array()
          .parse(classifiers)
          .map((pin) => place('classifier', pin)),
      ),
    }),
    ...(detector !== undefined && { detector: await place('face-detector', ModelPin.parse(detector)) }),
    ...(restorer !== undefined && { restorer: await place('face-restorer', ModelPin.parse(restorer)) }),
  }
}
