/** What there is to show and do of a session. */
import type { Session } from '../client/types.ts'
import { attempt, may, request } from './api.ts'
import { drop, note } from './live.ts'

export const isOpen = ({ endedAt }: Session): boolean => endedAt === null

/** Its words: what a picture was asked for; of other work its name. */
export const titleOf = ({ input, workflow }: Session): string =>
  typeof input['prompt'] === 'string' && input['prompt'] !== ''
    ? input['prompt']
    : (workflow.split('@')[0] ?? workflow).replaceAll('-', ' ')

export interface Shown {
  url: string
  width: number
  height: number
}

const sideOf = (value: unknown): number => (typeof value === 'number' && value > 0 ? value : 1)

/** The pictures of what a session, or one of its items, has put out. */
export const imagesOf = ({ output }: Pick<Session, 'output'>): Shown[] =>
  (output?.images ?? []).map(({ url, ...more }) => ({ url, width: sideOf(more['width']), height: sideOf(more['height']) }))

/** The picture while it is drawn, and the draft of one that rests; the number makes a browser ask anew. */
export function previewOf({ id, status, progress, version, input, endedAt }: Session): Shown | undefined {
  if (endedAt !== null) return undefined
  const { preview, checkpoint, image } = progress ?? {}
  if (preview === undefined && checkpoint === undefined) return undefined
  const n = status === 'running' ? (image ?? 1) * 10_000 + (preview ?? checkpoint ?? 0) : version * 100_000_000
  return { url: `/v1/sessions/${id}/preview?n=${n}`, width: sideOf(input['width']), height: sideOf(input['height']) }
}

/** Its first picture, or what there is of it so far. */
export const pictureOf = (session: Session): Shown | undefined => imagesOf(session)[0] ?? previewOf(session)

/** What a request for a picture says in plain words and figures. */
export const plain = [
  'prompt',
  'negativePrompt',
  'model',
  'seed',
  'width',
  'height',
  'steps',
  'guidance',
  'sampler',
  'schedule',
  'strength',
  'count',
] as const

/** In which states of a session each verb means something. */
const meant = {
  pause: ['queued', 'running'],
  resume: ['paused', 'pausing'],
  cancel: ['queued', 'running', 'pausing', 'paused'],
  retry: ['failed', 'cancelled'],
  delete: ['succeeded', 'failed', 'cancelled'],
} as const satisfies Record<string, readonly Session['status'][]>
export type Verb = keyof typeof meant
export const verbs = Object.keys(meant) as readonly Verb[]

/** Whether the verb means something now, and the viewer may say it. */
export const allows = ({ status }: Session, verb: Verb): boolean =>
  may(verb === 'retry' ? 'submit' : 'control') && (meant[verb] as readonly string[]).includes(status)

/** @throws Problem */
export async function perform(id: string, verb: Verb): Promise<Session | undefined> {
  if (verb === 'delete') {
    await request('DELETE', `/sessions/${id}`)
    drop(id)
    return undefined
  }
  const session = await request<Session>('POST', `/sessions/${id}/${verb}`)
  note(session)
  return session
}

/** As the API takes tags. */
export const tagPattern = '[\\w.:\\-]{1,64}'
/** The tag of what somebody likes. */
export const starred = 'star'
export const isStarred = ({ tags }: Session): boolean => tags.includes(starred)

/** Gives a session a tag, or takes it. @throws Refusal */
export async function tag({ id, tags }: Session, name: string, isOn: boolean): Promise<void> {
  const others = tags.filter((each) => each !== name)
  note(await request<Session>('PATCH', `/sessions/${id}`, { tags: isOn ? [...others, name] : others }))
}

export const act = (id: string, verb: Verb): Promise<Session | undefined> => attempt(() => perform(id, verb))
