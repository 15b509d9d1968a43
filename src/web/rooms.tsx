/** The rooms behind the table: those that are the page's own, and all others as the API tells them. */
import type { FunctionComponent } from 'preact'
import { Compare } from './compare.tsx'
import { Draw } from './draw.tsx'
import { QueueRoom } from './queue.tsx'
import type { Place } from './route.ts'
import { SessionRoom } from './session.tsx'
import { Told } from './told.tsx'

const own: Partial<Record<Place['room'], FunctionComponent<{ id: string }>>> = {
  draw: Draw,
  session: SessionRoom,
  compare: Compare,
  queue: QueueRoom,
}

export function Other({ room, id }: Place) {
  const Own = own[room]
  return Own ? <Own id={id} /> : <Told room={room} id={id} />
}
