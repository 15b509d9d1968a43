/** The queue as HTTP shows it: who waits for a device, and what an operator has paused. */
import { z } from 'zod'
import type { Caller } from '../../api-keys.ts'
import type { Place, QueueView as Queue } from '../../engine/waiting.ts'
import { seesAll } from '../policy.ts'
import { iso, Time } from '../view.ts'

export const PlaceView = z
  .strictObject({
    session: z.string(),
    position: z.int().min(1).meta({ description: '1 is let in next' }),
    priority: z.int().min(0).max(9),
    level: z.int().min(0).max(9).meta({ description: 'the priority with what waiting has added to it' }),
    keyId: z.string().nullable(),
    waitedS: z.number().min(0),
    queue: z.string().meta({ description: 'where its step would go: a hardware class, a device, those of a class with a model' }),
    why: z.string().meta({ description: 'why it waits, in words' }),
    startsInS: z.number().nullable().meta({
      description:
        'about how long until a device begins it, by how long sessions took of late; null where none was measured, or none is let in',
    }),
  })
  .meta({ id: 'Place' })
export type PlaceView = z.infer<typeof PlaceView>

export const PauseView = z
  .strictObject({
    device: z.string().optional(),
    class: z.string().optional().meta({ description: 'an exactness key' }),
    since: Time,
  })
  .meta({ id: 'QueuePause', description: 'of a device, of all devices of a class, or of the whole queue' })

export const QueueView = z
  .strictObject({
    waiting: z.int().min(0).meta({ description: 'sessions in line, of all API keys' }),
    running: z.int().min(0).meta({ description: 'steps that run on devices' }),
    next: z.int().min(0).meta({ description: 'steps that were let in and come next' }),
    paused: z.array(PauseView),
    sessions: z.array(PlaceView).meta({ description: 'those that the caller may see, by position' }),
  })
  .meta({ id: 'Queue' })
export type QueueView = z.infer<typeof QueueView>

export const PauseQueue = z
  .strictObject({
    device: z.string().min(1).max(200).optional().meta({ description: 'this device alone: its id, or `cuda:0`' }),
    class: z
      .string()
      .regex(/^[0-9a-f]{8}$/, 'must be an exactness key, 8 hexadecimal digits')
      .optional()
      .meta({ description: 'all devices of this exactness key' }),
  })
  .refine(({ device, class: exactnessKey }) => device === undefined || exactnessKey === undefined, {
    path: ['class'],
    message: 'stands beside `device`: give one of them, or neither for the whole queue',
  })
  .meta({ id: 'PauseQueue' })

/** What the caller may see of it, `limit` sessions at most. */
export function presentQueue({ places, pauses, running, next }: Queue, caller: Caller, limit: number): QueueView {
  const own = places.filter(({ keyId }) => seesAll(caller) || keyId === caller.keyId)
  return {
    waiting: places.length,
    running,
    next,
    paused: pauses.map(({ since, ...what }) => ({ ...what, since: iso(since) })),
    sessions: own.slice(0, limit).map(presentPlace),
  }
}

const presentPlace = ({ session, position, priority, level, keyId, waitedMs, queue, why, startsInMs }: Place): PlaceView => ({
  session,
  position,
  priority,
  level,
  keyId,
  waitedS: Math.max(0, waitedMs) / 1000,
  queue,
  why,
  startsInS: startsInMs === null ? null : startsInMs / 1000,
})
