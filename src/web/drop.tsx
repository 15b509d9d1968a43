/** A place to put a picture: dropped, pasted or chosen. */
import { useSignal } from '@preact/signals'
import { useEffect, useId } from 'preact/hooks'
import type { UploadedPicture } from '../client/types.ts'
import { attempt, upload } from './api.ts'

export function Drop({
  label,
  onPicture,
  takesPaste = false,
}: {
  label: string
  onPicture: (picture: UploadedPicture) => void
  takesPaste?: boolean
}) {
  const id = useId()
  const isOver = useSignal(false)
  const isBusy = useSignal(false)
  const take = async (files: FileList | null | undefined): Promise<void> => {
    const [file] = files ?? []
    if (!file) return
    isBusy.value = true
    const picture = await attempt(async () => upload(new Uint8Array(await file.arrayBuffer())))
    isBusy.value = false
    if (picture) onPicture(picture)
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
        accept="image/png,image/jpeg,image/webp,image/avif"
        onChange={(event) => {
          void take(event.currentTarget.files)
          event.currentTarget.value = ''
        }}
      />
      <span>{isBusy.value ? 'Taking it in…' : label}</span>
    </label>
  )
}
