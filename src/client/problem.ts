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
    if (response.type === 'opaqueredirect' || (response.status >= 300 && response.status < 400)) {
      const to = response.headers.get('location')
      return Problem.notDarkroom(response, `a redirect${to === null ? '' : ` to ${to.slice(0, 200)}`}, which is not followed`)
    }
    const text = await response.text().catch(() => '')
    return readDocument(text) ?? Problem.notDarkroom(response, describeText(text))
  }

  /** Something between us and the API, or in its place, answered in its own words. */
  static notDarkroom({ url, status, statusText }: Response, what: string): Problem {
    return new Problem({
      title: statusText,
      status,
      detail: `${url} answered ${status} with ${what}`,
      code: 'api.not_darkroom',
      class: status >= 500 ? 'transient' : 'permanent',
      remedy: 'Set DARKROOM_URL (or --url) to the address of Darkroom itself: what answers there is something else.',
    })
  }
}

/** The document as far as it is one: what a program shows of it must be there. */
function readDocument(text: string): Problem | undefined {
  const document = parsed(text) as Partial<ProblemDocument> | undefined
  const { title, status, detail, code, class: errorClass, remedy, problems } = document ?? {}
  if (document === undefined || typeof status !== 'number') return undefined
  if ([title, detail, code, errorClass, remedy].some((each) => typeof each !== 'string')) return undefined
  const areFields =
    Array.isArray(problems) && problems.every(({ field, message }) => typeof field === 'string' && typeof message === 'string')
  const { problems: _, ...rest } = document as ProblemDocument
  return new Problem({ ...rest, ...(areFields && { problems }) })
}

/** The JSON object of a text; undefined when it is none. */
export function parsed(text: string): object | undefined {
  try {
    const value = JSON.parse(text) as unknown
    return typeof value === 'object' && value !== null ? value : undefined
  } catch {
    return undefined
  }
}

/** What came in place of JSON, in few words. */
export const describeText = (text: string): string =>
  text === '' ? 'nothing' : `what is no answer of Darkroom: ${JSON.stringify(text.slice(0, 100))}`

/** `fetch failed` says nothing; its cause does. */
function reasonOf(cause: unknown): string {
  const { cause: deeper, message, code } = (cause ?? {}) as { cause?: unknown; message?: string; code?: string }
  if (deeper !== undefined) return reasonOf(deeper)
  return message || code || String(cause)
}
