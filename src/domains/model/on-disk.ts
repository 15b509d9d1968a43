/** What operations share that look at a model where it lies: of any kind, whether it draws or not. */
import type { Catalogue } from '../operation.ts'
import { ModelKind, ModelName, ShelvedModel } from '../values.ts'
import { z } from 'zod'

/** What a client sends. */
export const Named = z.strictObject({ model: ModelName, kind: ModelKind })

/** What the operation is asked. */
export const Shelved = z.strictObject({ model: ShelvedModel })

/** A step on a host that has the model. */
export const onDisk = {
  lane: 'host',
  attempts: 3,
  needs: ({ model }: z.infer<typeof Shelved>) => ({ models: [model] }),
  input: Shelved,
} as const

/**
 * The model that a request names, as it is listed now.
 * @throws DarkroomError `model.unknown`, `model.ambiguous`
 */
export async function shelved({ model, kind }: z.infer<typeof Named>, catalogue: Catalogue): Promise<z.infer<typeof Shelved>> {
  const { id, bodyHash, entry } = await catalogue.named(model, kind)
  return { model: { id, bodyHash, kind: entry.verdict.kind } }
}
