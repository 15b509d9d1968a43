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

/** As much of JSON Schema as a form reads. */
export interface FormSchema {
  type?: string
  description?: string
  default?: string | number | boolean
  minimum?: number
  maximum?: number
  multipleOf?: number
  maxLength?: number
  enum?: readonly string[]
  anyOf?: readonly FormSchema[]
  items?: FormSchema
  properties?: Readonly<Record<string, FormSchema>>
  required?: readonly string[]
}
