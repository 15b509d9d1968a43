/** A place to put a picture: dropped, pasted or chosen. */
import { useEffect, useId, useSignal } from './view.ts'
import type { UploadedPicture } from '../client/types.ts'
import { attempt, upload } from './api.ts'

export function Drop({
  label,
  onPicture,
  takesPaste = false,
  many = false,
}: {
  label: string
  onPicture: (picture: UploadedPicture) => void
  takesPaste?: boolean
  /** Several at once, each told of in turn. */
  many?: boolean
}) {
  const id = useId()
  const isOver = useSignal(false)
  const isBusy = useSignal(false)
  const take = async (files: FileList | null | undefined): Promise<void> => {
    const taken = [...(files ?? [])].slice(0, many ? undefined : 1)
    isBusy.value = true
    for (const file of taken) {
      const picture = await attempt(async () => upload(new Uint8Array(await file.arrayBuffer())))
      if (picture) onPicture(picture)
    }
    isBusy.value = false
  }
  useEffect(() => {
    if (!takesPaste) return undefined
    const paste = (event: ClipboardEvent): void => void take(event.clipboardData?.files)
    addEventListener('paste', paste)
    return () => removeEventListener('paste', paste)
  }, [takesPaste])
  return (
    <label
      class={`drop${isOver.value ? ' over' : ''}`}
      for={id}
      onDragOver={(event) => {
        event.preventDefault()
        isOver.value = true
      }}
      onDragLeave={() => (isOver.value = false)}
      onDrop={(event) => {
        event.preventDefault()
        isOver.value = false
        void take(event.dataTransfer?.files)
      }}
    >
      <input
        id={id}
        type="file"
        multiple={many}
        accept="image/png,image/jpeg,image/webp,image/avif"
        onChange={(event) => {
          const { currentTarget } = event
          void take(currentTarget.files).finally(() => (currentTarget.value = ''))
        }}
      />
      <span>{isBusy.value ? 'Taking it in…' : label}</span>
    </label>
  )
}
