/** A picture that may not be there: its place is kept. */
import { useSignal } from './view.ts'
import type { Shown } from './session-view.ts'

/** Side of a thumbnail, of which the store has one of every picture. */
const thumbnail = 256

/** `isSmall`: its thumbnail, or itself where there is none. */
export function Picture({ shown, alt = '', isSmall = false }: { shown: Shown | undefined; alt?: string; isSmall?: boolean }) {
  const lost = useSignal<readonly string[]>([])
  const { url = '', width, height } = shown ?? {}
  const isStored = url.startsWith('/v1/artifacts/')
  const [src] = [isSmall && isStored && `${url}?size=${thumbnail}`, url].filter((each) => each && !lost.value.includes(each))
  if (!src) return <span class="no-picture" aria-hidden="true" />
  return (
    <img
      class={isStored ? undefined : 'preview'}
      src={src}
      alt={alt}
      width={width}
      height={height}
      loading={isSmall ? 'lazy' : 'eager'}
      decoding="async"
      onError={() => (lost.value = [...lost.value, src])}
    />
  )
}

/** Drawn, because not every font has one. */
export const Star = () => <i class="star-shape" aria-hidden="true" />
