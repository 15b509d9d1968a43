/** What Redis knows of the items of a session. */
import { sessionError, unknownSession, type WireError } from '../errors.ts'
import { keys } from '../keys.ts'
import { translated, translatedAll, type Redis } from '../redis.ts'
import type { Items } from '../workflows/index.ts'
import { itemsOf, plannedFields } from './item-record.ts'
import { ended, type Progress, type Session, type Status } from './session.ts'

type Fields = Record<string, unknown>

/** `waiting`: it was not opened yet, or never was. */
export type ItemStatus = 'waiting' | Status

export interface Item {
  index: number
  status: ItemStatus
  /** The child session that it was opened as. */
  session: string | null
  /** The request, as a client may send it alone. */
  input: Fields
  /** How far it is, 0…1; null before it runs. */
  progress: number | null
  output: Fields | null
  error: WireError | null
}

export interface ItemFilter {
  status?: ItemStatus | undefined
  /** Index to begin at. */
  from: number
  limit: number
}

const atOnce = 500

/** A picture that an output names. */
export interface Image {
  sha256: string
  mediaType: string
}

const isImage = (value: unknown): value is Image => {
  const { sha256, mediaType } = (value ?? {}) as Partial<Image>
  return typeof sha256 === 'string' && typeof mediaType === 'string' && mediaType.startsWith('image/')
}

/** The pictures of an output: `images`, or the output itself. */
export function imagesOf(output: Fields | null): Image[] {
  const images = output?.['images']
  return (Array.isArray(images) ? images : [output]).filter(isImage)
}

export class ItemReads {
  readonly #redis: Redis

  constructor(redis: Redis) {
    this.#redis = redis
  }

  /** The request of an item. @throws DarkroomError `session.unknown` when the session was deleted */
  async input(id: string, index: number): Promise<Fields> {
    const [base, own] = await Promise.all([
      translated(this.#redis.hget(keys.session(id), 'items:base')),
      translated(this.#redis.lindex(keys.items(id), index)),
    ])
    if (base === null || own === null) throw unknownSession(id)
    return { ...(JSON.parse(base) as Fields), ...(JSON.parse(own) as Fields) }
  }

  /**
   * Items in their order; `next` is the index to go on from. With a status it reads on until a page is full.
   * @throws DarkroomError `session.no_items`
   */
  async page(id: string, { status, from, limit }: ItemFilter): Promise<{ items: Item[]; next: number | null }> {
    const found: Item[] = []
    for (let at = from; ;) {
      const { items, total } = await this.#some(id, at, status === undefined ? limit : atOnce)
      for (const item of items) {
        at = item.index + 1
        if (status !== undefined && item.status !== status) continue
        found.push(item)
        if (found.length === limit) break
      }
      if (at >= total || items.length === 0) return { items: found, next: null }
      if (found.length === limit) return { items: found, next: at }
    }
  }

  /**
   * Of a session that has worked off items, those that have not succeeded, for another one; undefined of any other.
   * @throws DarkroomError `session.not_retryable` while it goes on, and where all have succeeded
   */
  async unfinished({ id, status }: Pick<Session, 'id' | 'status'>): Promise<Items | undefined> {
    const values = await translated(this.#redis.hmget(keys.session(id), ...plannedFields))
    const record = Object.fromEntries(plannedFields.map((name, i) => [name, values[i] ?? null])) as Record<
      (typeof plannedFields)[number],
      string | null
    >
    if (record['items:workflow'] === null) return undefined
    if (!ended.has(status)) throw sessionError('not_retryable', `session ${id} is ${status}`)
    const [own, states] = await Promise.all([
      translated(this.#redis.lrange(keys.items(id), 0, -1)),
      translated(this.#redis.hgetall(keys.itemStates(id))),
    ])
    const each = own.filter((_, index) => !states[index]?.startsWith('succeeded:'))
    if (each.length === 0) throw sessionError('not_retryable', `all items of session ${id} have succeeded`)
    return itemsOf(record, each)
  }

  /** What has come of a session so far: of its items, page by page, or of itself as the only one. */
  async *results({ id, status, input, progress, output, error }: Session): AsyncGenerator<Item[]> {
    if (!progress?.items) return yield [{ index: 0, status, session: id, input, progress: progress?.fraction ?? null, output, error }]
    for (let from: number | null = 0; from !== null;) {
      const page: Awaited<ReturnType<ItemReads['page']>> = await this.page(id, { from, limit: atOnce })
      yield page.items
      from = page.next
    }
  }

  async #some(id: string, from: number, count: number): Promise<{ items: Item[]; total: number }> {
    const [known, base, total] = await translated(this.#redis.hmget(keys.session(id), 'status', 'items:base', 'items:total'))
    if (known === null || known === undefined) throw unknownSession(id)
    if (base === null || base === undefined) throw sessionError('no_items', `session ${id} works off no items`)
    const own = await translated(this.#redis.lrange(keys.items(id), from, from + count - 1))
    const indexes = own.map((_, i) => String(from + i))
    const states = indexes.length === 0 ? [] : await translated(this.#redis.hmget(keys.itemStates(id), ...indexes))
    const opened = states.map((state) => /^(\w+):(.+)$/.exec(state ?? '') ?? [])
    const children = opened.flatMap(([, , child]) => child ?? [])
    const pipeline = children.reduce(
      (all, child) => all.hmget(keys.session(child), 'status', 'progress', 'output', 'error'),
      this.#redis.pipeline(),
    )
    const read = children.length === 0 ? [] : ((await translatedAll(pipeline)) as (string | null)[][])
    const records = new Map(children.map((child, i) => [child, read[i] ?? []]))
    const common = JSON.parse(base) as Fields
    const isOver = ended.has(known as Status)
    const items = own.map((text, i): Item => {
      const [, how, child = null] = opened[i] ?? []
      const [status = null, progress = null, output = null, error = null] = records.get(child ?? '') ?? []
      // One that was opened just now has no session yet; of one that was deleted the end is known all the same.
      const usual = isOver ? 'cancelled' : child === null ? 'waiting' : 'queued'
      return {
        index: from + i,
        status: how === undefined || how === 'open' ? ((status as Status | null) ?? usual) : (how as Status),
        session: child,
        input: { ...common, ...(JSON.parse(text) as Fields) },
        progress: progress === null ? null : (JSON.parse(progress) as Progress).fraction,
        output: output === null ? null : (JSON.parse(output) as Fields),
        error: error === null ? null : (JSON.parse(error) as WireError),
      }
    })
    return { items, total: Number(total) }
  }
}
