/** The way of previews from the Python child to who watches: worth less than what they show, so none is waited for. */
import { readFile, rm } from 'node:fs/promises'
import { jpegOf } from '../artifacts/preview.ts'
import type { Attempt, AttemptPort } from '../engine/attempt.ts'
import type { Logger } from '../log.ts'
import type { PreviewMade } from './python/protocol.ts'

export interface PreviewsOptions {
  attempt: Attempt
  port: Pick<AttemptPort, 'preview'>
  log: Logger
}

/** Those of one attempt. */
export class Previews {
  readonly #options: PreviewsOptions
  #isBusy = false
  #call: number | undefined
  /** Settles when nothing of it goes on. */
  shown: Promise<void> = Promise.resolve()

  constructor(options: PreviewsOptions) {
    this.#options = options
  }

  /** After how many calls the picture looked as the latest one shows it. */
  get call(): number | undefined {
    return this.#call
  }

  /** Takes one. It is dropped while the one before is on its way: a newer one comes. */
  take(made: PreviewMade): void {
    if (this.#isBusy) return
    this.#isBusy = true
    this.shown = this.#show(made)
      .catch((error: unknown) => this.#options.log.debug({ step: this.#options.attempt.stepKey, err: error }, 'a preview was not shown'))
      .finally(() => (this.#isBusy = false))
  }

  async #show({ path, call, width, height }: PreviewMade): Promise<void> {
    const { attempt, port } = this.#options
    const rgb = await readFile(path)
    await rm(path, { force: true })
    await port.preview(attempt, call, await jpegOf({ rgb, width, height }))
    this.#call = call
  }
}
