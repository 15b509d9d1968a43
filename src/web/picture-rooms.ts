/** The rooms in which pictures are asked for and looked at: one script, for they share most of what they need. */
import { Compare } from './compare.tsx'
import { Draw } from './draw.tsx'
import { SessionRoom } from './session.tsx'

export const rooms = { draw: Draw, session: SessionRoom, compare: Compare }
