import type { Tools } from '../operation.ts'
import type { ResolveInput, ResolveOutput } from './schema.ts'

/** Makes sure that the pinned model is here and is still the one the session was accepted with. */
export async function resolve(input: ResolveInput, tools: Tools): Promise<ResolveOutput> {
  const found = await tools.model(input.model.id, input.model.bodyHash)
  return { model: input.model, family: found.family }
}
