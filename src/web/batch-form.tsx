/** Many pictures of one form: over seeds, over values of its fields, over the choices in its prompt. */
import { signal } from './signals.ts'
import { attempt, submit } from './api.ts'
import { form } from './form.ts'
import { Labelled, Select } from './parts.tsx'
import { go } from './route.ts'
import { plain } from './session-view.ts'
import { plural } from './words.ts'

interface Axis {
  field: string
  values: string
}

const axes = signal<readonly Axis[]>([])
const seeds = signal(1)
const wildcards = signal('each')

/** Values between commas; what reads as JSON is meant so. */
const valuesOf = ({ values }: Axis): unknown[] =>
  values
    .split(',')
    .map((each) => each.trim())
    .filter(Boolean)
    .map((each) => {
      try {
        return JSON.parse(each) as unknown
      } catch {
        return each
      }
    })

const chosen = (): Axis[] => axes.value.filter((axis) => valuesOf(axis).length > 0)

async function send(): Promise<void> {
  const { count: _, ...input } = form.value
  const grid = Object.fromEntries(chosen().map((axis) => [axis.field, valuesOf(axis)]))
  const session = await attempt(() =>
    submit('batch', {
      input,
      wildcards: wildcards.value,
      ...(seeds.value > 1 && { seeds: { count: seeds.value } }),
      ...(Object.keys(grid).length > 0 && { grid }),
    }),
  )
  if (session) go('batches', session.id)
}

export function BatchFields({ names }: { names: readonly string[] }) {
  const cells = chosen().reduce((count, axis) => count * valuesOf(axis).length, seeds.value)
  const change = (at: number, more: Partial<Axis>): void =>
    void (axes.value = axes.value.with(at, { ...(axes.value[at] as Axis), ...more }))
  return (
    <details class="batch">
      <summary>Batch and grid</summary>
      {axes.value.map((axis, at) => (
        <div key={at} class="row">
          <Labelled label="Over">
            <Select
              value={axis.field}
              of={plain.filter((name) => name !== 'count' && names.includes(name))}
              choose={(field) => change(at, { field })}
            />
          </Labelled>
          <Labelled
            label="Values, between commas"
            value={axis.values}
            placeholder="8, 16, 32"
            onInput={({ currentTarget: { value } }) => change(at, { values: value })}
          />
          <button aria-label={`Not over ${axis.field}`} onClick={() => (axes.value = axes.value.toSpliced(at, 1))}>
            ×
          </button>
        </div>
      ))}
      <div class="row">
        <Labelled
          label="Seeds of each"
          type="number"
          min="1"
          max="10000"
          value={seeds.value}
          onInput={({ currentTarget }) => (seeds.value = currentTarget.valueAsNumber || 1)}
        />
        <Labelled label="{a|b} in the prompt">
          <Select
            value={wildcards.value}
            of={{ each: 'draws one for each', all: 'makes all of them', off: 'stays as it is' }}
            choose={(value) => (wildcards.value = value)}
          />
        </Labelled>
      </div>
      <div class="verbs">
        {axes.value.length < 2 && (
          <button onClick={() => (axes.value = [...axes.value, { field: axes.value.length === 0 ? 'steps' : 'guidance', values: '' }])}>
            Over values of a field
          </button>
        )}
        <button disabled={typeof form.value['prompt'] !== 'string'} onClick={() => void send()}>
          Draw {plural(cells, 'picture')} as a batch
        </button>
      </div>
    </details>
  )
}
