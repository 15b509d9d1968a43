/** What people say of models: title, tags, notes, settings; in Redis by body hash, so it follows the bytes. */
import { keys } from '../keys.ts'
import { runScript, translated, type Redis } from '../redis.ts'
import type { Drawing } from './drawing.ts'
import type { VaePin } from './entry.ts'
import { modelError } from './errors.ts'

/** Empty where nothing is said. */
export interface Annotation {
  title: string
  tags: string[]
  notes: string
  /** Fill in what a request leaves out, before what the model itself recommends. */
  settings: Partial<Drawing['recommended']>
  /** Decodes in place of its own; `id` as it was called then. Absent in annotations of earlier versions. */
  vae?: VaePin | null
  changedAt: number
}

/** So many models may have one. */
const most = 20_000

export class Annotations {
  readonly #redis: Redis
  #version = ''
  #all: ReadonlyMap<string, Annotation> = new Map()

  constructor(redis: Redis) {
    this.#redis = redis
  }

  /** As they were read last. */
  of(bodyHash: string | null): Annotation | undefined {
    return bodyHash === null ? undefined : this.#all.get(bodyHash)
  }

  /** Reads them again if one has changed; whether one had. */
  async refresh(): Promise<boolean> {
    const version = (await translated(this.#redis.get(keys.annotationsVersion()))) ?? ''
    if (version === this.#version) return false
    const all = await translated(this.#redis.hgetall(keys.annotations()))
    this.#all = new Map(Object.entries(all).map(([bodyHash, text]) => [bodyHash, JSON.parse(text) as Annotation]))
    this.#version = version
    return true
  }

  /** In place of the one before. @throws DarkroomError `model.annotations_full` */
  async write(bodyHash: string, annotation: Annotation | null): Promise<void> {
    const text = annotation === null ? '' : JSON.stringify(annotation)
    const [is] = await runScript(this.#redis, 'annotateModel', keys.annotations(), [bodyHash, text, most])
    if (is === 'full') throw modelError('annotations_full', `${most} models are annotated already`)
    await this.refresh()
  }
}
