/** The frame around the drawing of a machine: what is lit is in sight, however long it is. */
import type { ComponentChildren } from 'preact'
import { useEffect, useRef } from './view.ts'

export function Drawing({ middle, children }: { middle?: number; children: ComponentChildren }) {
  const figure = useRef<HTMLElement>(null)
  useEffect(() => {
    if (middle !== undefined) figure.current?.scrollTo({ left: middle - figure.current.clientWidth / 2 })
  }, [middle])
  return (
    <figure ref={figure} class="diagram" tabIndex={0} aria-label="Diagram">
      {children}
    </figure>
  )
}
