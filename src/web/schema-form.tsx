/** A form for any workflow, from the schema of its input: one field for each property, JSON where that is no plain value. */
import { namesIn, type Schema } from './fields.tsx'

const isNumber = ({ type }: Schema): boolean => type === 'integer' || type === 'number'
const isPlain = (schema: Schema): boolean =>
  schema.type === 'string' || isNumber(schema) || schema.type === 'boolean' || namesIn(schema).length > 0

export function SchemaForm({ schema, onSubmit }: { schema: Schema; onSubmit: (form: HTMLFormElement) => void }) {
  const fields = Object.entries(schema.properties ?? {})
  return (
    <form
      class="schema"
      onSubmit={(event) => {
        event.preventDefault()
        onSubmit(event.currentTarget)
      }}
    >
      {fields.map(([name, field]) => (
        <label key={name} class="field">
          <span>{name}</span>
          <Control name={name} field={field} isRequired={schema.required?.includes(name) ?? false} />
          {field.description && <small>{field.description}</small>}
        </label>
      ))}
      <button type="submit" class="main">
        Run
      </button>
    </form>
  )
}

function Control({ name, field, isRequired }: { name: string; field: Schema; isRequired: boolean }) {
  const names = namesIn(field)
  const usual = field.default === undefined ? '' : String(field.default)
  if (names.length > 0)
    return (
      <select name={name} required={isRequired}>
        <option value="">{usual}</option>
        {names.map((each) => (
          <option key={each}>{each}</option>
        ))}
      </select>
    )
  if (field.type === 'boolean') return <input type="checkbox" name={name} defaultChecked={field.default === true} />
  if (isNumber(field))
    return (
      <input
        type="number"
        name={name}
        required={isRequired}
        min={field.minimum}
        max={field.maximum}
        step={field.type === 'integer' ? 1 : 'any'}
        placeholder={usual}
      />
    )
  if (isPlain(field)) return <input type="text" name={name} required={isRequired} maxLength={field.maxLength} placeholder={usual} />
  return <textarea name={name} rows={2} required={isRequired} placeholder="JSON" spellcheck={false} />
}

/** What was written, by the schema; empty fields are not said. @throws SyntaxError for JSON that is none */
export function readInput(schema: Schema, form: HTMLFormElement): Record<string, unknown> {
  const data = new FormData(form)
  return Object.fromEntries(
    Object.entries(schema.properties ?? {}).flatMap(([name, field]): [string, unknown][] => {
      if (field.type === 'boolean') return [[name, data.has(name)]]
      const text = data.get(name)
      if (typeof text !== 'string' || text === '') return []
      if (isNumber(field)) return [[name, Number(text)]]
      return [[name, isPlain(field) ? text : (JSON.parse(text) as unknown)]]
    }),
  )
}
