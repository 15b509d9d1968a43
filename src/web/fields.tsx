/** Fields of a form, by what the schema of its workflow says of them. */
import { useId } from 'preact/hooks'
import type { ComponentChildren } from 'preact'
import { faults, form, set } from './form.ts'

/** As much of JSON Schema as the form reads. */
export interface Schema {
  type?: string
  description?: string
  default?: string | number | boolean
  minimum?: number
  maximum?: number
  multipleOf?: number
  maxLength?: number
  enum?: readonly string[]
  anyOf?: readonly Schema[]
  items?: Schema
  properties?: Readonly<Record<string, Schema>>
  required?: readonly string[]
}

export interface FieldProps {
  name: string
  label: string
  schema: Schema | undefined
  placeholder?: string | undefined
}

/** Label, control, and what the API said of it. */
export function Field({
  name,
  label,
  hint,
  children,
  id,
}: {
  name: string
  label: string
  hint?: string | undefined
  id: string
  children: ComponentChildren
}) {
  const fault = faults.value[name]
  return (
    <div class="field" data-name={name}>
      <label for={id} title={hint}>
        {label}
      </label>
      {children}
      {fault !== undefined && (
        <p class="fault" id={`${id}-fault`} role="alert">
          {fault}
        </p>
      )}
    </div>
  )
}

const described = (name: string, id: string) =>
  faults.value[name] === undefined ? {} : { 'aria-invalid': true, 'aria-describedby': `${id}-fault` }

export function NumberField({ name, label, schema, placeholder }: FieldProps) {
  const id = useId()
  const value = form.value[name]
  return (
    <Field name={name} label={label} hint={schema?.description} id={id}>
      <input
        id={id}
        type="number"
        min={schema?.minimum}
        max={schema?.maximum}
        step={schema?.multipleOf ?? (schema?.type === 'integer' ? 1 : 'any')}
        value={typeof value === 'number' ? value : ''}
        placeholder={placeholder}
        onInput={(event) => set(name, event.currentTarget.value === '' ? undefined : event.currentTarget.valueAsNumber)}
        {...described(name, id)}
      />
    </Field>
  )
}

export function TextField({
  name,
  label,
  schema,
  placeholder,
  rows = 3,
  isRequired = false,
}: FieldProps & { rows?: number; isRequired?: boolean }) {
  const id = useId()
  const value = form.value[name]
  return (
    <Field name={name} label={label} hint={schema?.description} id={id}>
      <textarea
        id={id}
        rows={rows}
        required={isRequired}
        maxLength={schema?.maxLength}
        placeholder={placeholder}
        value={typeof value === 'string' ? value : ''}
        onInput={(event) => set(name, event.currentTarget.value)}
        {...described(name, id)}
      />
    </Field>
  )
}

/** Names of an enumeration, wherever it stands in the schema. */
export const namesIn = (schema: Schema | undefined): readonly string[] =>
  schema?.enum ?? schema?.anyOf?.flatMap((each) => each.enum ?? []) ?? []

export function ChoiceField({ name, label, schema, placeholder = 'as the model says' }: FieldProps) {
  const id = useId()
  const value = form.value[name]
  const chosen = typeof value === 'string' ? value : ''
  const names = namesIn(schema)
  return (
    <Field name={name} label={label} hint={schema?.description} id={id}>
      <select id={id} value={chosen} onChange={(event) => set(name, event.currentTarget.value)} {...described(name, id)}>
        <option value="">{placeholder}</option>
        {(chosen !== '' && !names.includes(chosen) ? [chosen, ...names] : names).map((each) => (
          <option key={each} value={each}>
            {each}
          </option>
        ))}
      </select>
    </Field>
  )
}
