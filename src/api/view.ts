/**
 * How HTTP shows values of the domains: an instant as ISO 8601 text, an artifact with a link to its bytes, everything
 * else as it is.
 */
import { z } from 'zod'
import { Instant } from '../domains/values.ts'
import { ArtifactUrl, withLinks } from './artifacts/views.ts'

/** A time as HTTP shows it. */
export const Time = z.iso.datetime().meta({ example: '2030-01-01T12:00:00.000Z' })

export const iso = (ms: number): string => new Date(ms).toISOString()
export const isoOrNull = (ms: number | null): string | null => (ms === null ? null : iso(ms))

/** `nullable()` on a named schema would make the component itself nullable. */
export const orNull = <S extends z.ZodType>(schema: S) => z.union([schema, z.null()])

type Some = z.core.$ZodType

/** The fields of an object that refers to an artifact. */
type Artifact = { sha256: Some; mediaType: Some }

/** The schema with `Time` for every `Instant`, and with `url` in every artifact. */
export type ViewOf<S extends Some> = S extends typeof Instant
  ? typeof Time
  : S extends z.ZodNullable<infer Inner extends Some>
    ? z.ZodNullable<ViewOf<Inner>>
    : S extends z.ZodOptional<infer Inner extends Some>
      ? z.ZodOptional<ViewOf<Inner>>
      : S extends z.ZodArray<infer Element extends Some>
        ? z.ZodArray<ViewOf<Element>>
        : S extends z.ZodObject<infer Shape, infer Config>
          ? z.ZodObject<
              { [Name in keyof Shape]: ViewOf<Shape[Name]> } & (Shape extends Artifact ? { url: typeof ArtifactUrl } : unknown),
              Config
            >
          : S

/** The schema of a domain as HTTP shows it. It keeps the `id`, which is its name in the OpenAPI document. */
export function viewOf<S extends z.ZodType>(schema: S): ViewOf<S> {
  return view(schema) as ViewOf<S>
}

/** A value of the schema as HTTP shows it. */
export function present<S extends z.ZodType>(schema: S, value: z.output<S>): z.output<ViewOf<S>> {
  return withLinks(show(schema, value)) as z.output<ViewOf<S>>
}

/** One view a schema: a component of the document is one schema. */
const views = new WeakMap<z.core.$ZodType, z.ZodType>()

function view(schema: z.ZodType): z.ZodType {
  const known = views.get(schema) ?? withMeta(changed(schema), schema)
  views.set(schema, known)
  return known
}

function withMeta(shown: z.ZodType, schema: z.ZodType): z.ZodType {
  const meta = schema.meta()
  return shown === schema || !meta ? shown : shown.meta({ ...shown.meta(), ...meta })
}

/** An instant stays one when it is described. */
const isInstant = (schema: z.core.$ZodType): boolean =>
  schema === Instant || (schema._zod.parent !== undefined && isInstant(schema._zod.parent))

/** The schema with its parts changed; the same one where there is nothing to change. */
function changed(schema: z.ZodType): z.ZodType {
  if (isInstant(schema)) return Time
  if (schema instanceof z.ZodObject) {
    const shape = schema.shape as Record<string, z.ZodType>
    const parts = Object.entries(shape).flatMap(([name, part]) => (view(part) === part ? [] : [[name, view(part)] as const]))
    if ('sha256' in shape && 'mediaType' in shape) parts.push(['url', ArtifactUrl])
    return parts.length === 0 ? schema : schema.extend(Object.fromEntries(parts))
  }
  if (schema instanceof z.ZodArray) {
    const element = view(schema.element as z.ZodType)
    return element === schema.element ? schema : z.array(element)
  }
  const inner = innerOf(schema)
  if (!inner || view(inner) === inner) return schema
  return schema instanceof z.ZodNullable ? view(inner).nullable() : view(inner).optional()
}

const innerOf = (schema: z.ZodType): z.ZodType | undefined =>
  schema instanceof z.ZodNullable || schema instanceof z.ZodOptional ? (schema.unwrap() as z.ZodType) : undefined

function show(schema: z.ZodType, value: unknown): unknown {
  if (view(schema) === schema || value === null || value === undefined) return value
  if (isInstant(schema)) return iso(value as number)
  if (schema instanceof z.ZodArray) return (value as unknown[]).map((each) => show(schema.element as z.ZodType, each))
  if (schema instanceof z.ZodObject) {
    const shape = schema.shape as Record<string, z.ZodType>
    const fields = Object.entries(value as Record<string, unknown>)
    return Object.fromEntries(fields.map(([name, field]) => [name, shape[name] ? show(shape[name], field) : field]))
  }
  const inner = innerOf(schema)
  return inner ? show(inner, value) : value
}
