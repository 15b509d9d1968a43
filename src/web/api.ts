/** Requests of the page, and what became of them. */
import { signal } from './signals.ts'
import type { ProblemDocument } from '../client/problem.ts'
import type { Session, UploadedPicture } from '../client/types.ts'
import { capital } from './words.ts'

/** The API has refused, in the words of its problem document. */
export class Refusal extends Error {
  readonly document: ProblemDocument

  constructor(document: ProblemDocument) {
    const { detail, remedy } = document
    super(`${capital(detail)}. ${remedy}`)
    this.document = document
  }
}

/** @throws Refusal; TypeError while the API is away */
export async function request<T>(method: string, path: string, body?: object, headers: Record<string, string> = {}): Promise<T> {
  const isFile = body instanceof Uint8Array
  const response = await fetch(`/v1${path}`, {
    method,
    headers: { ...(body && { 'Content-Type': isFile ? 'application/octet-stream' : 'application/json' }), ...headers },
    body: body && (isFile ? new Uint8Array(body) : JSON.stringify(body)),
  } as RequestInit)
  const told: unknown = response.status === 204 ? undefined : await response.json()
  if (!response.ok) throw new Refusal(told as ProblemDocument)
  return told as T
}

export const get = <T>(path: string): Promise<T> => request<T>('GET', path)

/** Submits a session; sent twice, it is one. With `waitS` the answer comes with its end, or after so many seconds. */
export const submit = (workflow: string, input: object, waitS?: number, more: object = {}): Promise<Session> =>
  request(
    'POST',
    '/sessions',
    { workflow, input, ...more },
    { 'Idempotency-Key': newId(), ...(waitS !== undefined && { Prefer: `wait=${waitS}` }) },
  )

export const upload = (file: Uint8Array): Promise<UploadedPicture> => request('POST', '/artifacts', file)

/** As GET /v1/login answers it: who looks at the page; null: nobody whom the farm lets in. */
export interface Viewer {
  keyId: string | null
  scopes: readonly ('submit' | 'read' | 'control' | 'operate')[]
}
export const viewer = signal<Viewer | null | undefined>(undefined)
export const may = (scope: Viewer['scopes'][number]): boolean => viewer.value?.scopes.includes(scope) ?? false

/** What could not be done last, in the words of the API. */
export const notice = signal<string | null>(null)

/** Does something that may be refused, and shows the refusal. */
export async function attempt<T>(act: () => Promise<T>): Promise<T | undefined> {
  try {
    notice.value = null
    return await act()
  } catch (error) {
    notice.value = wordsOf(error)
    return undefined
  }
}

/** What cannot be had now is asked for again by its room. */
export const quietly = (act: Promise<unknown>): void => void act.catch(() => undefined)

export const wordsOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** Not `crypto.randomUUID`: a page that came over plain HTTP from another machine has none. */
const newId = (): string => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('')

/** Counts who came in and who left: an answer of before that says nothing of now. */
let comings = 0

/** @throws TypeError while the API is away */
export async function lookWho(): Promise<void> {
  const isOut = (error: unknown): null => {
    if (error instanceof Refusal) return null
    throw error
  }
  const asked = comings
  const found = await get<Viewer>('/login').catch(isOut)
  if (asked === comings) viewer.value = found
}

/** @throws Refusal for a key that does not open the farm */
export async function enter(key: string): Promise<void> {
  const entered = await request<Viewer>('POST', '/login', { key })
  comings++
  viewer.value = entered
}

export async function leave(): Promise<void> {
  await request('DELETE', '/login')
  comings++
  viewer.value = null
}
