/** What a live connection asks for, and what it is told. */
import { z } from 'zod'
import { statuses } from '../../engine/session.ts'
import { sessionIdPattern } from '../../keys.ts'
import { DeviceView, StatusView } from '../devices/views.ts'
import { Problem } from '../problem.ts'
import { EventView, ProgressView, SessionPage, SessionView } from '../sessions/views.ts'

/** Most sessions whose history one connection follows. */
const maxFollowed = 64

const sessionId = z.string().regex(sessionIdPattern, 'must be a session id')

/** All that a connection wants to hear; each message takes the place of the one before. */
export const LiveRequest = z
  .strictObject({
    list: z
      .strictObject({
        status: z.enum(statuses).optional(),
        workflow: z.string().min(1).max(128).optional(),
        tag: z.string().min(1).max(64).optional(),
        parent: sessionId.optional(),
        limit: z.int().min(1).max(200).default(100).meta({ description: 'how many sessions the snapshot has at most' }),
      })
      .optional()
      .meta({ description: 'a list as GET /v1/sessions answers it, then what changes of it' }),
    sessions: z
      .record(sessionId, z.int().min(0))
      .refine((sessions) => Object.keys(sessions).length <= maxFollowed, `must be at most ${maxFollowed} sessions`)
      .default({})
      .meta({ description: 'sessions whose history is followed, each with the number of the last entry that the caller has; 0: none' }),
    devices: z.boolean().default(false),
  })
  .meta({ id: 'LiveRequest', example: { list: { limit: 100 }, sessions: {}, devices: true } })
export type LiveRequest = z.infer<typeof LiveRequest>

export const LiveDevice = z
  .strictObject({ ...DeviceView.shape, vitals: StatusView.shape.vitals, running: StatusView.shape.running })
  .meta({ id: 'LiveDevice' })

/** One thing that a connection is told; a message is an array of them. */
export const LiveFrame = z
  .discriminatedUnion('type', [
    z
      .strictObject({ type: z.literal('list'), ...SessionPage.shape })
      .meta({ description: 'the list anew: it takes the place of all before' }),
    z.strictObject({ type: z.literal('session'), session: SessionView }).meta({ description: 'as it is now' }),
    z
      .strictObject({ type: z.literal('progress'), id: z.string(), progress: ProgressView })
      .meta({ description: 'nothing else of it has changed' }),
    z.strictObject({ type: z.literal('gone'), id: z.string() }).meta({ description: 'it is not there, or not of the list any more' }),
    z
      .strictObject({ type: z.literal('event'), session: z.string(), id: z.int(), event: EventView })
      .meta({ description: 'entry `id` of its history; ask again with the last one after a cut' }),
    z.strictObject({ type: z.literal('devices'), devices: z.array(LiveDevice) }),
    z
      .strictObject({ type: z.literal('problem'), problem: Problem })
      .meta({ description: 'the last request was refused; the one before holds' }),
  ])
  .meta({ id: 'LiveFrame' })
export type LiveFrame = z.infer<typeof LiveFrame>

/** Why a connection was ended, by its code. */
export const closeCodes = { restart: 1012, tooMuch: 1008, shutOut: 4401 } as const
