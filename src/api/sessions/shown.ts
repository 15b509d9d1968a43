/** A session with its place in the queue. */
import type { Session } from '../../engine/session.ts'
import type { EnginePort } from '../context.ts'
import { presentSession, type SessionView } from './views.ts'

export const shownSession = async (engine: Pick<EnginePort, 'waiting'>, session: Session): Promise<SessionView> =>
  presentSession(session, await engine.waiting.placeOf(session))
