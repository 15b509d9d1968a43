/** A picture drawn again from its own receipt: are the bytes the same? */
import { signal } from './signals.ts'
import type { PictureRequest, Receipt, Session } from '../client/types.ts'
import { attempt, get, may, submit } from './api.ts'
import { devices } from './live.ts'
import { linkTo } from './route.ts'
import { isOpen } from './session-view.ts'

interface Verdict {
  sha256: string
  words: string
  /** The session that drew it again. */
  again?: string
}
const verdict = signal<Verdict | null>(null)
const waitS = 30

/** @throws Refusal */
async function verify(sha256: string, key: string | null): Promise<void> {
  const tell = (words: string, again?: string): void => void (verdict.value = { sha256, words, ...(again !== undefined && { again }) })
  tell('It is drawn again…')
  const { input } = await get<PictureRequest>(`/artifacts/${sha256}/request`)
  // Equal bytes are promised where the exactness keys are equal.
  const device = devices.value.find(({ exactnessKey }) => exactnessKey === key)?.id
  let made = await submit('image-generation', { ...input, count: 1 }, waitS, device === undefined ? {} : { device })
  for (; isOpen(made); made = await get<Session>(`/sessions/${made.id}`)) await new Promise((resolve) => setTimeout(resolve, 1000))
  const [image] = made.output?.images ?? []
  const { exactnessKey } = await get<Receipt>(`/sessions/${made.id}/receipt`)
  const why = exactnessKey === key ? '' : ' They are promised where the hardware and programs are the same, and here they are not.'
  if (!image) tell(made.error?.message ?? `The session that draws it again was ${made.status}.`, made.id)
  else tell(image.sha256 === sha256 ? 'The same bytes.' : `Other bytes.${why}`, made.id)
}

export function Verify({ session, sha256, exactnessKey }: { session: string; sha256: string; exactnessKey: string | null }) {
  const told = verdict.value?.sha256 === sha256 ? verdict.value : null
  if (!may('submit')) return null
  return (
    <>
      <button
        title="Draw it again from its receipt, and compare the bytes"
        onClick={() => void attempt(() => verify(sha256, exactnessKey)).then(() => verdict.value?.again ?? (verdict.value = null))}
      >
        Verify
      </button>
      {told && (
        <p class="verdict" role="status">
          {told.words} {told.again !== undefined && <a href={linkTo('compare', `${session},${told.again}`)}>Compare</a>}
        </p>
      )}
    </>
  )
}
