/** Which room is open, by the part of the address behind `#`. */
import { signal } from './signals.ts'

/** Rooms of the navigation. */
export const rooms = {
  table: 'Table',
  draw: 'Draw',
  queue: 'Queue',
  batches: 'Batches',
  schedules: 'Schedules',
  devices: 'Devices',
  models: 'Models',
  workflows: 'Workflows',
  webhooks: 'Webhooks',
  keys: 'Keys',
} as const
export type RoomName = keyof typeof rooms

export interface Place {
  room: RoomName | 'session' | 'compare'
  /** Of a session; of a workflow by its name; of two sessions, with a comma between them. */
  id: string
}

function placeOf(hash: string): Place {
  const [, room = '', id = ''] = /^#\/([a-z]*)(?:\/(.*))?$/.exec(hash) ?? []
  const isRoom = room in rooms || room === 'session' || room === 'compare'
  return { room: isRoom ? (room as Place['room']) : 'table', id: decode(id) }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return ''
  }
}

export const place = signal<Place>(placeOf(location.hash))
addEventListener('hashchange', () => {
  place.value = placeOf(location.hash)
  scrollTo(0, 0)
})

export const linkTo = (room: Place['room'], id = ''): string => `#/${room}${id && `/${encodeURIComponent(id)}`}`
export const go = (room: Place['room'], id = ''): void => void (location.hash = linkTo(room, id))
