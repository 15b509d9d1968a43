import { z } from 'zod'

/** JSON Schema 2020-12, which is the dialect of OpenAPI 3.1. */
export function jsonSchema(schema: z.core.$ZodType, side: 'input' | 'output'): Record<string, unknown> {
  return { ...z.toJSONSchema(schema, { io: side, unrepresentable: 'any' }) }
}
