/** Which cards of a long list are on the screen. The others are not in the document. */
import { signal } from './signals.ts'
import { useEffect, useSignal } from './view.ts'
import type { RefObject } from 'preact'

/** As page.css has it: the narrowest card, the gap between two, what stands under a picture. */
const [narrowest, narrowestOnPhone, gap, captionHeight] = [208, 150, 14, 58] as const
/** Rows beyond the edges of the screen. */
const spare = 2

const scrolled = signal(0)
addEventListener('scroll', () => (scrolled.value = scrollY), { passive: true })

export function useGrid(list: RefObject<HTMLElement | null>, count: number) {
  const width = useSignal(1200)
  const top = useSignal(0)
  const height = useSignal(innerHeight)
  useEffect(() => {
    const element = list.current
    if (!element) return undefined
    const measure = (): void => {
      width.value = element.clientWidth
      top.value = element.getBoundingClientRect().top + scrollY
      height.value = innerHeight
    }
    measure()
    const observer = new ResizeObserver(measure)
    observer.observe(element)
    addEventListener('resize', measure)
    return () => {
      observer.disconnect()
      removeEventListener('resize', measure)
    }
  }, [])
  const least = width.value < 520 ? narrowestOnPhone : narrowest
  const columns = Math.max(1, Math.floor((width.value + gap) / (least + gap)))
  const rowHeight = (width.value - (columns - 1) * gap) / columns + captionHeight + gap
  const rows = Math.ceil(count / columns)
  const first = Math.max(0, Math.floor((scrolled.value - top.value) / rowHeight) - spare)
  const last = Math.ceil((scrolled.value - top.value + height.value) / rowHeight) + spare
  return { from: Math.min(first, rows) * columns, to: Math.min(count, last * columns), columns, rowHeight, rows }
}
