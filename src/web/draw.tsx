/** The form of a picture, and what became of the last one. */
import { signal } from './signals.ts'
import { useEffect, useSignal } from './view.ts'
import type { FormSchema, Workflow } from '../client/types.ts'
import { Again } from './again.tsx'
import { get, may, quietly, Refusal, submit, wordsOf } from './api.ts'
import { AdapterFields } from './adapters.tsx'
import { drawing, lookForModels, modelsOf } from './catalogue.ts'
import { ControlFields } from './control.tsx'
import { Estimate, Tokens, useOwn, type Own } from './estimate.tsx'
import { BatchFields } from './batch-form.tsx'
import { ChoiceField, Field, NumberField, TextField } from './fields.tsx'
import { Fault, Main } from './parts.tsx'
import { Picker } from './picker.tsx'
import { References } from './references.tsx'
import { clear, faults, form, isPainting, set } from './form.ts'
import { note } from './live.ts'
import { drawn, Results } from './results.tsx'
import { Seed } from './seed.tsx'
import { Source, told } from './source.tsx'

const schema = signal<FormSchema | null>(null)
const fault = signal<string | null>(null)

/** `id`: fields that a link has filled in, as a query has them. */
export function Draw({ id }: { id: string }) {
  useEffect(() => new URLSearchParams(id).forEach((value, name) => set(name, value)), [id])
  useEffect(() => {
    quietly(get<Workflow>('/workflows/image-generation').then(({ inputSchema }) => (schema.value = inputSchema as FormSchema)))
    quietly(lookForModels())
  }, [])
  if (!may('submit')) return <p class="empty">This key may not draw.</p>
  return (
    <section class="draw" aria-labelledby="draw-name">
      <h1 id="draw-name" class="sr">
        Draw
      </h1>
      <Form />
      <Results />
      {told.value && <Again request={() => Promise.resolve(told.value?.input ?? {})} close={() => (told.value = null)} />}
    </section>
  )
}

const presets = [
  ['Square', 1, 1],
  ['Portrait', 3, 4],
  ['Tall', 9, 16],
  ['Landscape', 4, 3],
  ['Wide', 16, 9],
] as const

/** A size of these proportions with about so many pixels, in steps of 64. */
function sizeOf(across: number, down: number, pixels: number): [number, number] {
  const step = pixels < 128 * 128 ? 8 : 64
  const scale = Math.sqrt(pixels / (across * down))
  return [across, down].map((side) => Math.max(64, Math.round((side * scale) / step) * step)) as [number, number]
}

function Form() {
  const fields = schema.value?.properties ?? {}
  const isSending = useSignal(false)
  const model = typeof form.value['model'] === 'string' ? form.value['model'] : String(fields['model']?.default ?? '')
  const own = useOwn(model)
  const field = (name: string) => ({ name, schema: fields[name] })
  const asModel = (name: keyof Own) => ({ ...field(name), placeholder: own && String(own[name]) })
  const pixels = (own?.width ?? 512) * (own?.height ?? 512)
  const draw = async (event: Event): Promise<void> => {
    event.preventDefault()
    isSending.value = true
    await send()
    isSending.value = false
  }
  return (
    <form onSubmit={(event) => void draw(event)}>
      <TextField {...field('prompt')} rows={4} required placeholder="What to draw" />
      <Tokens name="prompt" />
      <TextField {...field('negativePrompt')} label="Without" rows={2} placeholder="What not to draw" />
      <Field
        {...field('model')}
        control={(said) => <Picker title="Model" models={drawing()} chosen={model} choose={(name) => set('model', name)} {...said} />}
      />
      <AdapterFields />
      <References model={model} schema={fields['references']} />
      <fieldset class="size">
        <legend>Size</legend>
        <div class="chips" role="group" aria-label="Proportions">
          {presets.map(([name, across, down]) => {
            const [width, height] = sizeOf(across, down, pixels)
            const isChosen = form.value['width'] === width && form.value['height'] === height
            return (
              <button
                key={name}
                aria-pressed={isChosen}
                title={`${width} × ${height}`}
                onClick={() => {
                  set('width', width)
                  set('height', height)
                }}
              >
                <i class="shape" style={{ 'aspect-ratio': `${across} / ${down}` }} aria-hidden="true" />
                {name}
              </button>
            )
          })}
        </div>
        <div class="row">
          <NumberField {...asModel('width')} />
          <NumberField {...asModel('height')} />
        </div>
      </fieldset>
      <div class="row">
        <NumberField {...asModel('steps')} />
        <NumberField {...asModel('guidance')} />
        <NumberField {...field('count')} label="Pictures" placeholder="1" />
      </div>
      <div class="row">
        <ChoiceField {...field('sampler')} />
        <ChoiceField {...field('schedule')} />
      </div>
      <Seed schema={fields['seed']} />
      <Source fields={fields} />
      <ControlFields controlnets={modelsOf('controlnet')} networks={modelsOf('preprocessor')} />
      <BatchFields names={Object.keys(fields)} />
      <div class="send">
        <Fault>{fault.value}</Fault>
        <Estimate model={model} />
        <Main disabled={isSending.value || isPainting.value}>Draw</Main>
        <button
          class="plain"
          onClick={() => {
            clear()
            fault.value = null
          }}
        >
          Empty the form
        </button>
      </div>
    </form>
  )
}

async function send(): Promise<void> {
  fault.value = null
  try {
    const session = await submit('image-generation', form.value)
    note(session)
    drawn.value = [session.id, ...drawn.value].slice(0, 12)
    faults.value = {}
  } catch (error) {
    const problems = error instanceof Refusal ? (error.document.problems ?? []) : []
    const said = problems.map(({ field, message }) => [field.replace(/^input\.(\w+).*/, '$1'), message] as const)
    faults.value = Object.fromEntries(said)
    const isShown = said.length > 0 && said.every(([name]) => document.querySelector(`[data-name="${CSS.escape(name)}"]`))
    fault.value = isShown ? null : wordsOf(error)
  }
}
