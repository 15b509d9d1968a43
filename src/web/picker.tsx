/** Models to choose from by their pictures. */
import { useId, useSignal } from './view.ts'
import type { Model } from '../client/types.ts'
import { lookOf } from './catalogue.ts'
import { Search } from './parts.tsx'
import { Picture } from './picture.tsx'

/** So many are looked over without a search line. */
const few = 8

/** `chosen`: what the button shows; without one it says `title`. */
export function Picker({
  title,
  models,
  chosen,
  choose,
  id,
}: {
  title: string
  models: readonly Model[]
  chosen?: string
  choose: (model: string) => void
  id?: string
}) {
  const list = useId()
  const line = useSignal('')
  const shown = models.filter(({ id: name }) => name.toLowerCase().includes(line.value.toLowerCase()))
  const current = models.find(({ id: name }) => name === chosen)
  return (
    <>
      <button id={id} class="picked" popovertarget={list} aria-label={chosen === undefined ? title : `${title}: ${chosen}`}>
        {chosen !== undefined && <Picture key={chosen} shown={current && lookOf(current)} isSmall />}
        <span>{chosen ?? title}</span>
      </button>
      <div id={list} class="picker" popover="auto" role="dialog" aria-label={title}>
        <h2>{title}</h2>
        {models.length > few && <Search label={`Search: ${title}`} placeholder="Search" line={line} />}
        <ul>
          {shown.map((model) => (
            <li key={model.id}>
              <button popovertarget={list} popovertargetaction="hide" aria-pressed={model.id === chosen} onClick={() => choose(model.id)}>
                <Picture shown={lookOf(model)} isSmall />
                <span>{model.annotation?.title || model.id}</span>
              </button>
            </li>
          ))}
        </ul>
      </div>
    </>
  )
}
