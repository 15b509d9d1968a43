/** Pictures that an edit is shown, in their order, where the model sees any. */
import type { FormSchema } from '../client/types.ts'
import { modelNamed } from './catalogue.ts'
import { Drop } from './drop.tsx'
import { Field } from './fields.tsx'
import { keep as keepList, listIn } from './form.ts'
import { Picture } from './picture.tsx'

const chosen = (): readonly string[] => listIn('references')
const keep = (pictures: readonly string[]): void => keepList('references', pictures)

export function References({ model, schema }: { model: string; schema: FormSchema | undefined }) {
  const pictures = chosen()
  const most = modelNamed(model)?.mostReferences ?? 0
  // What the form has from another model is shown, so it can be taken out.
  if (most === 0 && pictures.length === 0) return null
  const move = (at: number, to: number): void => keep(pictures.toSpliced(at, 1).toSpliced(to, 0, pictures[at] ?? ''))
  return (
    <Field
      name="references"
      label={`Pictures that it is shown, at most ${most}`}
      schema={schema}
      control={({ id, 'aria-describedby': fault }) => (
        <div id={id} class="references" role="group" aria-label="Pictures that it is shown" aria-describedby={fault}>
          <ol>
            {pictures.map((sha256, at) => (
              <li key={sha256}>
                <Picture shown={{ url: `/v1/artifacts/${sha256}`, width: 96, height: 96 }} alt={`Picture ${at + 1}`} isSmall />
                <button aria-label={`Picture ${at + 1} earlier`} disabled={at === 0} onClick={() => move(at, at - 1)}>
                  ‹
                </button>
                <button aria-label={`Picture ${at + 1} later`} disabled={at === pictures.length - 1} onClick={() => move(at, at + 1)}>
                  ›
                </button>
                <button aria-label={`Without picture ${at + 1}`} onClick={() => keep(pictures.toSpliced(at, 1))}>
                  ×
                </button>
              </li>
            ))}
          </ol>
          {pictures.length < most && (
            <Drop
              label="Drop or choose pictures that the edit is shown"
              many
              onPicture={({ sha256 }) => keep([...new Set([...chosen(), sha256])].slice(0, most))}
            />
          )}
        </div>
      )}
    />
  )
}
