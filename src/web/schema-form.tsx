/** A form for any workflow, from the schema of its input: one field for each property, JSON where that is no plain value. */
import { namesIn, stepOf, type Schema } from './fields.tsx'
import { Form, Labelled, Main, Select } from './parts.tsx'

const isNumber = ({ type }: Schema): boolean => type === 'integer' || type === 'number'
const isPlain = (schema: Schema): boolean =>
  schema.type === 'string' || isNumber(schema) || schema.type === 'boolean' || namesIn(schema).length > 0

export function SchemaForm({ schema, act }: { schema: Schema; act: (said: FormData) => Promise<void> }) {
  return (
    <Form class="schema" act={act}>
      {Object.entries(schema.properties ?? {}).map(([name, field]) => (
        <Labelled key={name} label={name}>
          <Control name={name} field={field} required={schema.required?.includes(name) ?? false} />
          {field.description && <small>{field.description}</small>}
        </Labelled>
      ))}
      <Main>Run</Main>
    </Form>
  )
}

function Control({ field, ...said }: { name: string; field: Schema; required: boolean }) {
  const names = namesIn(field)
  const usual = String(field.default ?? '')
  if (names.length > 0) return <Select {...said} none={usual} of={names} />
  if (field.type === 'boolean') return <input type="checkbox" name={said.name} defaultChecked={field.default === true} />
  if (isNumber(field))
    return <input {...said} type="number" min={field.minimum} max={field.maximum} step={stepOf(field)} placeholder={usual} />
  if (isPlain(field)) return <input {...said} maxLength={field.maxLength} placeholder={usual} />
  return <textarea {...said} rows={2} placeholder="JSON" spellcheck={false} />
}

/** What was written, by the schema; empty fields are not said. @throws SyntaxError for JSON that is none */
export function readInput(schema: Schema, said: FormData): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(schema.properties ?? {}).flatMap(([name, field]): [string, unknown][] => {
      if (field.type === 'boolean') return [[name, said.has(name)]]
      const text = said.get(name)
      if (typeof text !== 'string' || text === '') return []
      if (isNumber(field)) return [[name, Number(text)]]
      return [[name, isPlain(field) ? text : (JSON.parse(text) as unknown)]]
    }),
  )
}
