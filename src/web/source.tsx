/** The picture to begin from, with a mask over it. */
import { signal } from './signals.ts'
import { useEffect } from './view.ts'
import type { FormSchema, PictureRequest, UploadedPicture } from '../client/types.ts'
import { get } from './api.ts'
import { Drop } from './drop.tsx'
import { ChoiceField, NumberField } from './fields.tsx'
import { form, set } from './form.ts'
import { MaskPainter } from './mask.tsx'

/** As it was uploaded. */
const source = signal<UploadedPicture | null>(null)
/** What it says of the request that it was drawn with. */
export const told = signal<PictureRequest | null>(null)

export function Source({ fields }: { fields: Readonly<Record<string, FormSchema>> }) {
  const picture = source.value
  const isNamed = form.value['picture'] !== undefined
  useEffect(() => {
    if (!isNamed) source.value = null
  }, [isNamed])
  const take = (taken: UploadedPicture): void => {
    source.value = taken
    set('mask', undefined)
    set('picture', taken.sha256)
    // What it tells of its own request is offered, never taken unasked.
    void get<PictureRequest>(`/artifacts/${taken.sha256}/request`).then(
      (request) => (told.value = request),
      () => undefined,
    )
  }
  return (
    <details class="source" open={isNamed}>
      <summary>Picture to begin from</summary>
      <Drop
        label={picture ? 'Another picture' : 'Drop, paste or choose a picture; one that tells how it was drawn fills the form'}
        onPicture={take}
        takesPaste
      />
      {isNamed && (
        <>
          {picture ? (
            <MaskPainter
              key={picture.sha256}
              src={picture.url}
              width={picture.width}
              height={picture.height}
              onMask={(id) => set('mask', id === null ? undefined : { source: id })}
            />
          ) : (
            <img class="begun" src={`/v1/artifacts/${String(form.value['picture'])}`} alt="The picture to begin from" />
          )}
          <div class="row">
            <NumberField name="strength" schema={fields['strength']} placeholder="0.75" />
            <ChoiceField name="resize" schema={fields['resize']} label="Fit" placeholder="crop" />
            <button
              class="plain"
              onClick={() => {
                for (const name of ['picture', 'mask', 'strength', 'resize']) set(name, undefined)
              }}
            >
              Without it
            </button>
          </div>
        </>
      )}
    </details>
  )
}
