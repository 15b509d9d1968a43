import type { Problem as Document } from '../api/problem.ts'
import type { Session } from './types.ts'

/** A problem document of the API. One that the client makes itself has no request id. */
export type ProblemDocument = Omit<Document, 'type' | 'requestId'> & Partial<Pick<Document, 'requestId'>>

export class Problem extends Error {
  readonly document: ProblemDocument

  constructor(document: ProblemDocument, options: { cause?: unknown } = {}) {
    super(document.detail, options)
    this.name = 'Problem'
    this.document = document
  }

  get code(): string {
    return this.document.code
  }

  get status(): number {
    return this.document.status
  }

  /** The API could not be reached: it is unknown whether the request took effect. */
  static unreachable(url: string, cause: unknown): Problem {
    return new Problem(
      {
        title: 'Unreachable',
        status: 0,
        detail: `no answer from ${url}: ${reasonOf(cause)}`,
        code: 'api.unreachable',
        class: 'transient',
        remedy: 'Start Darkroom with `npm start`, or say with DARKROOM_URL where it runs.',
      },
      { cause },
    )
  }

  /** Why a session has no output: the error it ended with, or that it was cancelled. */
  static ofSession({ id, status, error }: Session): Problem {
    const {
      code,
      class: errorClass,
      message,
      remedy,
      field,
    } = error ?? {
      code: 'session.cancelled',
      class: 'cancelled' as const,
      message: `session ${id} is ${status}`,
      remedy: 'Submit it again if it was not meant to end.',
      field: undefined,
    }
    return new Problem({ title: 'Session failed', status: 200, detail: message, code, class: errorClass, remedy, field })
  }

  /** Reads the problem of a response that is no success. */
  static async of(response: Response): Promise<Problem> {
    const text = await response.text().catch(() => '')
    try {
      const document = JSON.parse(text) as ProblemDocument
      if (typeof document.code === 'string') return new Problem(document)
    } catch {
      // Something between us and the API answered in its own words.
    }
    return new Problem({
      title: response.statusText,
      status: response.status,
      detail: `${response.url} answered ${response.status} ${response.statusText}: ${text.slice(0, 200)}`,
      code: 'api.not_darkroom',
      class: response.status >= 500 ? 'transient' : 'permanent',
      remedy: 'Check DARKROOM_URL: this does not look like Darkroom.',
    })
  }
}

/** `fetch failed` says nothing; its cause does. */
function reasonOf(cause: unknown): string {
  const { cause: deeper, message, code } = (cause ?? {}) as { cause?: unknown; message?: string; code?: string }
  if (deeper !== undefined) return reasonOf(deeper)
  return message || code || String(cause)
}
