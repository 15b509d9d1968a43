/** LoRAs and their kin, each with its weight. */
import { keep, listIn } from './form.ts'
import { lookOf, modelsOf } from './catalogue.ts'
import { Picker } from './picker.tsx'
import { Picture } from './picture.tsx'

interface Adapter {
  model: string
  weight?: number
}

export function AdapterFields() {
  const known = modelsOf('lora')
  const adapters = listIn<Adapter>('adapters')
  if (known.length === 0 && adapters.length === 0) return null
  const looks = new Map(known.map((model) => [model.id, lookOf(model)]))
  const free = known.filter(({ id }) => !adapters.some(({ model }) => model === id))
  return (
    <fieldset class="adapters">
      <legend>LoRA</legend>
      {adapters.map((adapter, at) => (
        <div key={adapter.model} class="row">
          <Picture shown={looks.get(adapter.model)} isSmall />
          <span class="name">{adapter.model}</span>
          <input
            type="number"
            step="0.05"
            min="-10"
            max="10"
            aria-label={`Weight of ${adapter.model}`}
            value={adapter.weight ?? 1}
            onInput={(event) => keep('adapters', adapters.with(at, { ...adapter, weight: event.currentTarget.valueAsNumber || 0 }))}
          />
          <button aria-label={`Without ${adapter.model}`} onClick={() => keep('adapters', adapters.toSpliced(at, 1))}>
            ×
          </button>
        </div>
      ))}
      {free.length > 0 && (
        <Picker title="Add a LoRA" models={free} choose={(model) => keep('adapters', [...adapters, { model, weight: 1 }])} />
      )}
    </fieldset>
  )
}
