/** Fields of a form, by what the schema of its workflow says of them. */
import type { FormSchema } from '../client/types.ts'
import { useId } from './view.ts'
import type { ComponentChildren } from 'preact'
import { faults, form, set } from './form.ts'
import { Fault, Select } from './parts.tsx'
import { capital } from './words.ts'

export interface FieldProps {
  name: string
  /** Its name, where nothing else is said. */
  label?: string
  schema: FormSchema | undefined
  placeholder?: string | undefined
}

interface Said {
  id: string
  'aria-invalid': boolean
  'aria-describedby': string | undefined
}

/** Label, control, and what the API said of it. */
export function Field({
  name,
  label = capital(name),
  schema,
  control,
}: Omit<FieldProps, 'placeholder'> & { control: (said: Said, value: unknown) => ComponentChildren }) {
  const id = useId()
  const fault = faults.value[name]
  const isWrong = fault !== undefined
  return (
    <div class="field" data-name={name}>
      <label for={id} title={schema?.description}>
        {label}
      </label>
      {control({ id, 'aria-invalid': isWrong, 'aria-describedby': isWrong ? `${id}-fault` : undefined }, form.value[name])}
      <Fault id={`${id}-fault`}>{fault}</Fault>
    </div>
  )
}

export const stepOf = ({ multipleOf, type }: FormSchema): number | 'any' => multipleOf ?? (type === 'integer' ? 1 : 'any')

export const NumberField = ({ placeholder, ...field }: FieldProps) => (
  <Field
    {...field}
    control={(said, value) => (
      <input
        {...said}
        type="number"
        min={field.schema?.minimum}
        max={field.schema?.maximum}
        step={stepOf(field.schema ?? {})}
        value={typeof value === 'number' ? value : ''}
        placeholder={placeholder}
        onInput={({ currentTarget }) => set(field.name, currentTarget.value === '' ? undefined : currentTarget.valueAsNumber)}
      />
    )}
  />
)

export const TextField = ({ placeholder, rows, required = false, ...field }: FieldProps & { rows: number; required?: boolean }) => (
  <Field
    {...field}
    control={(said, value) => (
      <textarea
        {...said}
        rows={rows}
        required={required}
        maxLength={field.schema?.maxLength}
        placeholder={placeholder}
        value={typeof value === 'string' ? value : ''}
        onInput={(event) => set(field.name, event.currentTarget.value)}
      />
    )}
  />
)

/** Names of an enumeration, wherever it stands in the schema. */
export const namesIn = (schema: FormSchema | undefined): readonly string[] =>
  schema?.enum ?? schema?.anyOf?.flatMap((each) => each.enum ?? []) ?? []

export const ChoiceField = ({ placeholder = 'as the model says', ...field }: FieldProps) => (
  <Field
    {...field}
    control={(said, value) => {
      const chosen = typeof value === 'string' ? value : ''
      const names = new Set([chosen, ...namesIn(field.schema)].filter(Boolean))
      return <Select {...said} value={chosen} none={placeholder} of={[...names]} choose={(name) => set(field.name, name)} />
    }}
  />
)
