/** What rooms are made of: their frame, reads that are repeated, questions before what cannot be taken back. */
import { useEffect, useSignal } from './view.ts'
import type { ComponentChildren } from 'preact'
import { quietly } from './api.ts'

/** A room with its name and what stands beside that. */
export function Room({
  name,
  title,
  bar,
  children,
}: {
  name: string
  title: string
  bar?: ComponentChildren
  children: ComponentChildren
}) {
  return (
    <section class={`${name} room`} aria-labelledby="room-name">
      <header class="bar">
        <h1 id="room-name">{title}</h1>
        {bar}
      </header>
      {children}
    </section>
  )
}

/** Reads at once and every so many ms; what cannot be read now is read the next time. */
export function useLook(look: () => Promise<unknown>, everyMs: number, ...of: readonly unknown[]): void {
  useEffect(() => {
    const again = (): void => {
      if (!document.hidden) quietly(look())
    }
    again()
    const timer = setInterval(again, everyMs)
    return () => clearInterval(timer)
  }, of)
}

/** As the `ref` of what comes into the room: always the same function, so it takes the focus once. */
export const focused = (element: HTMLElement | null): void => element?.focus()

/** A button that asks once more. `of`: what it is done to, in words. */
export function Sure({ verb, of, act }: { verb: string; of: string; act: () => unknown }) {
  const isAsked = useSignal(false)
  if (!isAsked.value)
    return (
      <button aria-label={`${verb} ${of}`} onClick={() => (isAsked.value = true)}>
        {verb}
      </button>
    )
  const answer = (isYes: boolean) => () => {
    isAsked.value = false
    if (isYes) act()
  }
  return (
    <span class="sure" role="group" aria-label={`${verb} ${of}?`}>
      {verb} {of}?
      <button class="danger" ref={focused} onClick={answer(true)}>
        {verb}
      </button>
      <button onClick={answer(false)}>Keep</button>
    </span>
  )
}
