import { z } from 'zod'

/** Metadata without ids: those name components of the OpenAPI document, and a schema that stands alone has none. */
class Described extends z.core.$ZodRegistry<Record<string, unknown>> {
  override get(schema: z.core.$ZodType) {
    const { id: _, ...rest } = z.globalRegistry.get(schema) ?? {}
    return rest
  }
}
const metadata = new Described()

/** JSON Schema 2020-12, which is the dialect of OpenAPI 3.1. */
export function jsonSchema(schema: z.core.$ZodType, side: 'input' | 'output'): Record<string, unknown> {
  return { ...z.toJSONSchema(schema, { io: side, unrepresentable: 'any', metadata }) }
}
