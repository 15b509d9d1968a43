/** The seed: said, drawn or kept. */
import type { FormSchema } from '../client/types.ts'
import { NumberField } from './fields.tsx'
import { form, set } from './form.ts'
import { sessionOf } from './live.ts'
import { drawn } from './results.tsx'

export function Seed({ schema: seed }: { schema: FormSchema | undefined }) {
  const draw = (): void => set('seed', crypto.getRandomValues(new Uint32Array(1))[0])
  const isKept = form.value['seed'] !== undefined
  return (
    <div class="row seed">
      <NumberField name="seed" schema={seed} placeholder="another one each time" />
      <button title="Draw a seed" aria-label="Draw a seed" onClick={draw}>
        <svg class="dice" viewBox="0 0 20 20" aria-hidden="true">
          <rect x="2" y="2" width="16" height="16" rx="4" />
          <path d="M6.5 6.5h0M13.5 6.5h0M10 10h0M6.5 13.5h0M13.5 13.5h0" />
        </svg>
      </button>
      <button
        aria-pressed={isKept}
        title={isKept ? 'The seed is kept' : 'Keep the seed of the last picture'}
        onClick={() => {
          const seedOfLast = sessionOf(drawn.value[0] ?? '')?.value.input['seed']
          if (isKept) set('seed', undefined)
          else if (typeof seedOfLast === 'number') set('seed', seedOfLast)
          else draw()
        }}
      >
        {isKept ? 'kept' : 'keep'}
      </button>
    </div>
  )
}
