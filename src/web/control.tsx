/** ControlNets: the picture that each is shown, and what is made of it before. */
import { signal } from './signals.ts'
import type { Model } from '../client/types.ts'
import { attempt, submit } from './api.ts'
import { Drop } from './drop.tsx'
import { keep as keepList, listIn } from './form.ts'
import { Labelled, Select } from './parts.tsx'

interface Control {
  model: string
  picture?: string
  preprocessor?: { name: string; model?: string }
  weight?: number
  start?: number
  end?: number
}

/** Those that need nothing but the picture. */
const preprocessors = ['canny', 'edge', 'soft', 'tile', 'blur', 'grey', 'invert'] as const

/** What a ControlNet is shown, by picture and preprocessor. */
const previews = signal<Readonly<Record<string, string>>>({})
const keyOf = (control: Control): string => `${control.picture} ${sightOf(control)}`
/** A preprocessor in one line: `grey`, or with its network `depth NAME`. */
const sightOf = ({ preprocessor: { name, model } = { name: '' } }: Control): string => (model ? `${name} ${model}` : name)

const keep = (controls: readonly Control[]): void => keepList('control', controls)

async function look(control: Control): Promise<void> {
  const { picture, preprocessor } = control
  if (picture === undefined || preprocessor === undefined) return
  const session = await attempt(() => submit('image-preprocess', { picture, preprocessor }, 60))
  const [image] = session?.output?.images ?? []
  if (image) previews.value = { ...previews.value, [keyOf(control)]: image.url }
}

export function ControlFields({ controlnets, networks }: { controlnets: readonly Model[]; networks: readonly Model[] }) {
  const sights = networks.flatMap(({ id, task, reason }) => (reason ? [] : [`${task} ${id}`]))
  const controls = listIn<Control>('control')
  if (controlnets.length === 0 && controls.length === 0) return null
  const change = (at: number, more: Partial<Control>): void => keep(controls.with(at, { ...(controls[at] as Control), ...more }))
  return (
    <details class="controls" open={controls.length > 0}>
      <summary>ControlNet</summary>
      {controls.map((control, at) => (
        <fieldset key={at}>
          <legend>{control.model}</legend>
          <div class="row">
            <Drop
              label={control.picture ? 'Another picture' : 'The picture that it is shown'}
              onPicture={({ sha256 }) => change(at, { picture: sha256 })}
            />
            {control.picture && (
              <img src={previews.value[keyOf(control)] ?? `/v1/artifacts/${control.picture}`} alt="What the ControlNet is shown" />
            )}
          </div>
          <div class="row">
            <Labelled label="Preprocessor">
              <Select
                value={sightOf(control)}
                none="shown as it is"
                of={[...preprocessors, ...sights]}
                choose={(sight) => {
                  const { preprocessor: _, ...rest } = control
                  const [, name = '', model] = /^(\S*) ?(.*)/.exec(sight) ?? []
                  keep(controls.with(at, name ? { ...rest, preprocessor: { name, ...(model && { model }) } } : rest))
                }}
              />
            </Labelled>
            {(['weight', 'start', 'end'] as const).map((name) => (
              <Labelled
                key={name}
                label={name}
                type="number"
                min="0"
                max={name === 'weight' ? 2 : 1}
                step="0.05"
                value={control[name] ?? (name === 'start' ? 0 : 1)}
                onInput={(event) => change(at, { [name]: event.currentTarget.valueAsNumber || 0 })}
              />
            ))}
          </div>
          <div class="verbs">
            <button disabled={!control.picture || !control.preprocessor} onClick={() => void look(control)}>
              Show what it sees
            </button>
            <button class="plain" onClick={() => keep(controls.toSpliced(at, 1))}>
              Without it
            </button>
          </div>
        </fieldset>
      ))}
      <Select
        aria-label="Add a ControlNet"
        value=""
        none="Add one"
        of={controlnets.map(({ id }) => id)}
        choose={(model) => keep([...controls, { model }])}
      />
    </details>
  )
}
