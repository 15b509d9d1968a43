/** What a room of the page is told of: who looks, and at what of it. */
import type { Caller, Scope } from '../../api-keys.ts'
import type { ApiParts } from '../context.ts'
import type { Element } from './markup.ts'

export interface At extends Pick<ApiParts, 'engine' | 'keys'> {
  caller: Caller
  may: (scope: Scope) => boolean
  /** What of the room is open: the id of one of its things. */
  of: string
  /** What was chosen to be shown. */
  show: string
  /** What is searched for. */
  line: string
}

/** A room: what it shows now. */
export type TellRoom = (at: At) => Element | Promise<Element>
